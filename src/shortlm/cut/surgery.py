"""Which tensors of a checkpoint stay when blocks go, and what they are called then."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from shortlm.checkpoint import Checkpoint, Copy, Piece, Slice, TensorEntry, Zeros
from shortlm.errors import ModelError


@dataclass(frozen=True)
class Surgery:
    """What becomes of a checkpoint's tensors: blocks are told by the `prefix` that their names begin with."""

    prefix: str
    kept: list[int]
    n_blocks: int
    dropped: Collection[str] = ()  # of blocks that stay
    zeroed: Collection[str] = ()
    mtp: Collection[str] = ()  # of heads behind the last block, which stay behind it unless they are in `dropped`
    per_block: Mapping[str, int] = field(default_factory=dict)  # outside the blocks: the axis with a part for each


def kept_pieces(checkpoint: Checkpoint, surgery: Surgery) -> list[Piece]:
    """The tensors of the blocks that stay, renumbered, and those outside the blocks, in the order of the files.

    Raises ModelError if the files don't fit the config.
    """
    pattern = re.compile(re.escape(surgery.prefix) + r"(\d+)\.(.*)", re.DOTALL)
    place = {original: new for new, original in enumerate(surgery.kept)}
    gone, silent, behind = set(surgery.dropped), set(surgery.zeroed), set(surgery.mtp)
    pieces: list[Piece] = []
    for name, entry in checkpoint.tensors.items():
        if name in gone:
            continue
        match = pattern.fullmatch(name)
        if match is None:
            pieces.append(_outside(entry, surgery))
            continue
        block, inside = int(match[1]), match[2]
        if block >= surgery.n_blocks and name not in behind:
            raise _beyond(checkpoint, name, block, surgery.n_blocks)
        new = len(place) + block - surgery.n_blocks if name in behind else place.get(block)
        if new is not None:
            pieces.append((Zeros if name in silent else Copy)(f"{surgery.prefix}{new}.{inside}", entry))
    return pieces


def _outside(entry: TensorEntry, surgery: Surgery) -> Piece:
    axis = surgery.per_block.get(entry.name)
    if axis is None:
        return Copy(entry.name, entry)
    width = entry.shape[axis] // surgery.n_blocks
    return Slice(entry.name, entry, {axis: [i * width + j for i in surgery.kept for j in range(width)]})


def _beyond(checkpoint: Checkpoint, name: str, block: int, n_blocks: int) -> ModelError:
    return ModelError(
        f"{checkpoint.name}: holds weights of block {block} beyond the {n_blocks} of its config: '{name}'; this can't "
        "be cut soundly (a head for multi-token prediction needs num_nextn_predict_layers in config.json)"
    )
