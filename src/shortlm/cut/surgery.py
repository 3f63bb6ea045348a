"""Which tensors of a checkpoint stay when blocks go, and what they are called then."""

from __future__ import annotations

import re
from collections.abc import Collection

from shortlm.checkpoint import Checkpoint, Copy, Piece, Zeros, block_prefix
from shortlm.errors import ModelError


def kept_pieces(
    checkpoint: Checkpoint, blocks_path: str, kept: list[int], n_blocks: int, dropped: Collection[str] = (),
    zeroed: Collection[str] = (),
) -> list[Piece]:  # fmt: skip
    """The tensors of the blocks in `kept`, renumbered, and all outside the blocks, in the order of the files.

    `blocks_path` is the module path of the list of blocks; of the blocks that stay, the tensors `dropped` go and the
    tensors `zeroed` become zeros. Raises ModelError if the files don't fit the config.
    """
    prefix = block_prefix(checkpoint, blocks_path, n_blocks)
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.(.*)", re.DOTALL)
    place = {original: new for new, original in enumerate(kept)}
    pieces: list[Piece] = []
    gone, silent = set(dropped), set(zeroed)
    for name, entry in checkpoint.tensors.items():
        match = pattern.fullmatch(name)
        if match is None:
            pieces.append(Copy(name, entry))
            continue
        block, inside = int(match[1]), match[2]
        _refuse_beyond(checkpoint, name, block, n_blocks)
        if block in place and name not in gone:
            kind = Zeros if name in silent else Copy
            pieces.append(kind(f"{prefix}{place[block]}.{inside}", entry))
    return pieces


def _refuse_beyond(checkpoint: Checkpoint, name: str, block: int, n_blocks: int) -> None:
    if block >= n_blocks:
        raise ModelError(
            f"{checkpoint.name}: holds weights of block {block} beyond the {n_blocks} of its config "
            f"(multi-token prediction?): '{name}'; this can't be cut soundly"
        )
