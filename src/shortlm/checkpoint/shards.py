"""Pieces into safetensors files of bounded size, with an index if there is more than one.

The headers are written before the data, by what the pieces say of themselves; pieces are written one behind the other.
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from shortlm.checkpoint.folder import INDEX, Checkpoint
from shortlm.checkpoint.headers import BITS
from shortlm.checkpoint.pieces import Piece
from shortlm.errors import ModelError, shown
from shortlm.progress import track


def write_shards(pieces: list[Piece], folder: Path, shard_size: int) -> int:
    """Write `pieces` into files of at most `shard_size` bytes (a larger tensor has its own). Returns all bytes.

    Raises ModelError for two tensors of one name, and what the pieces raise.
    """
    _refuse_twice(pieces)
    shards = _split(pieces, shard_size)
    names = ["model.safetensors"]
    if len(shards) > 1:
        names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    total = sum(piece.nbytes for piece in pieces)
    with track(what="write", total=total) as bar:
        for name, shard in zip(names, shards, strict=True):
            _write_shard(folder / name, shard, bar.update)
    if len(shards) > 1:
        _write_index(folder, {p.name: name for name, shard in zip(names, shards, strict=True) for p in shard}, total)
    return total


def add_shard(pieces: list[Piece], to: Checkpoint, name: str) -> None:
    """Write `pieces` into one more file of a checkpoint, and say so in its index."""
    _write_shard(to.folder / name, _aligned(pieces), lambda count: None)
    weight_map = {tensor: entry.file.name for tensor, entry in to.tensors.items()}
    total = to.nbytes + sum(piece.nbytes for piece in pieces)
    _write_index(to.folder, weight_map | {piece.name: name for piece in pieces}, total)


def _write_index(folder: Path, weight_map: dict[str, str], total: int) -> None:
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _refuse_twice(pieces: list[Piece]) -> None:
    twice = [name for name, times in Counter(piece.name for piece in pieces).items() if times > 1]
    if twice:
        raise ModelError(f"two tensors would be called {shown(twice[0])}; nothing was written; please report this")


def _split(pieces: list[Piece], shard_size: int) -> list[list[Piece]]:
    shards: list[list[Piece]] = [[]]
    size = 0
    for piece in pieces:
        if shards[-1] and size + piece.nbytes > shard_size:
            shards.append([])
            size = 0
        shards[-1].append(piece)
        size += piece.nbytes
    return [_aligned(shard) for shard in shards]


def _aligned(shard: list[Piece]) -> list[Piece]:
    """Widest types first, as safetensors itself writes them: then every tensor begins at a multiple of its width."""
    return sorted(shard, key=lambda piece: -BITS[piece.dtype])


def _write_shard(path: Path, pieces: list[Piece], done: Callable[[int], object]) -> None:
    raw = _header(pieces)
    with path.open("wb", buffering=0) as target:
        target.write(struct.pack("<Q", len(raw)) + raw)
        end = 8 + len(raw)
        for piece in pieces:
            piece.write(target)
            end += piece.nbytes
            assert target.tell() == end, f"{piece.name}: wrote {target.tell() - end} bytes more than its header says"
            done(piece.nbytes)


def _header(pieces: list[Piece]) -> bytes:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for piece in pieces:
        end = offset + piece.nbytes
        header[piece.name] = {"dtype": piece.dtype, "shape": list(piece.shape), "data_offsets": [offset, end]}
        offset = end
    raw = json.dumps(header, separators=(",", ":")).encode()
    return raw + b" " * (-len(raw) % 8)  # the format aligns the data to 8 bytes
