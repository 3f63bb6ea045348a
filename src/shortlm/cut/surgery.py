"""Write the shorter checkpoint from the files of the longer one: bytes are copied, nothing is decoded.

Reads safetensors headers and byte ranges; writes safetensors shards, an index if there is more than one,
and carries tokenizer and other files along. Memory: one copy buffer, whatever the model.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from shortlm.checkpoint import Checkpoint, TensorEntry, block_prefix
from shortlm.errors import ModelError
from shortlm.progress import track

BUFFER = 2**20
CHUNK = 256 * 2**20  # so that a progress bar moves and Ctrl-C is heard
NO_KERNEL_COPY = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ETXTBSY, errno.EPERM}


@dataclass(frozen=True)
class Piece:
    """A tensor and the name it has in the result."""

    name: str
    entry: TensorEntry


def kept_pieces(checkpoint: Checkpoint, blocks_path: str, kept: list[int], n_blocks: int) -> list[Piece]:
    """The tensors that stay, under their new names. Raises ModelError if the files don't fit the config."""
    prefix = block_prefix(checkpoint, blocks_path, n_blocks)
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.(.*)", re.DOTALL)
    place = {original: new for new, original in enumerate(kept)}
    pieces = []
    for name, entry in checkpoint.tensors.items():
        match = pattern.fullmatch(name)
        if match is None:
            pieces.append(Piece(name, entry))
        elif int(match[1]) >= n_blocks:
            raise ModelError(
                f"{checkpoint.name}: holds weights of block {match[1]} beyond the {n_blocks} of its config "
                f"(multi-token prediction?): '{name}'; this can't be cut soundly"
            )
        elif int(match[1]) in place:
            pieces.append(Piece(f"{prefix}{place[int(match[1])]}.{match[2]}", entry))
    return pieces


def write_shards(pieces: list[Piece], folder: Path, shard_size: int) -> int:
    """Write `pieces` into files of at most `shard_size` bytes (a larger tensor has its own). Returns all bytes."""
    shards = _split(pieces, shard_size)
    names = ["model.safetensors"]
    if len(shards) > 1:
        names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    total = sum(piece.entry.nbytes for piece in pieces)
    with track(what="cut", total=total) as bar:
        for name, shard in zip(names, shards, strict=True):
            _write_shard(folder / name, shard, bar.update)
    if len(shards) > 1:
        weight_map = {p.name: name for name, shard in zip(names, shards, strict=True) for p in shard}
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return total


def _split(pieces: list[Piece], shard_size: int) -> list[list[Piece]]:
    shards: list[list[Piece]] = [[]]
    size = 0
    for piece in pieces:
        if shards[-1] and size + piece.entry.nbytes > shard_size:
            shards.append([])
            size = 0
        shards[-1].append(piece)
        size += piece.entry.nbytes
    return shards


def _write_shard(path: Path, pieces: list[Piece], done: Callable[[int], object]) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for piece in pieces:
        end = offset + piece.entry.nbytes
        entry = {"dtype": piece.entry.dtype, "shape": list(piece.entry.shape), "data_offsets": [offset, end]}
        header[piece.name] = entry
        offset = end
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)  # the format aligns the data to 8 bytes
    with path.open("wb", buffering=0) as target:
        target.write(struct.pack("<Q", len(raw)) + raw)
        for piece in pieces:
            _copy(piece.entry, target)
            done(piece.entry.nbytes)


def _copy(entry: TensorEntry, target: BinaryIO) -> None:
    """Append the tensor's bytes to `target`, within the kernel where the system can."""
    with entry.file.open("rb", buffering=0) as source:
        begin, left = entry.begin, entry.nbytes
        while left:
            count = _copy_some(source, begin, target, min(left, CHUNK))
            if not count:
                raise ModelError(
                    f"{entry.file}: shard ended while '{entry.name}' was copied; was it changed meanwhile?"
                )
            begin, left = begin + count, left - count


def _copy_some(source: BinaryIO, begin: int, target: BinaryIO, count: int) -> int:
    """Copy up to `count` bytes; returns how many were copied, 0 at the end of the source."""
    if hasattr(os, "copy_file_range"):
        try:
            return os.copy_file_range(source.fileno(), target.fileno(), count, offset_src=begin)
        except OSError as error:
            if error.errno not in NO_KERNEL_COPY:
                raise
    source.seek(begin)
    return target.write(source.read(min(count, BUFFER)))


def write_checksums(folder: Path) -> Path:
    """SHA256SUMS of the weights, for `sha256sum -c`."""
    lines = []
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            digest, buffer = hashlib.sha256(), memoryview(bytearray(BUFFER))
            while count := file.readinto(buffer):
                digest.update(buffer[:count])
        lines.append(f"{digest.hexdigest()}  {path.name}\n")
    target = folder / "SHA256SUMS"
    target.write_text("".join(lines), encoding="utf-8")
    return target
