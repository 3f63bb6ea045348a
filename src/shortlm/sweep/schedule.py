"""What a schedule of a sweep is made of: the sizes of a model's parts, what is asked, and how it will go.

Shapes: S sequences of T tokens, L blocks, D hidden, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from shortlm.checkpoint import Checkpoint
from shortlm.model import find_anatomy, meta_model, of_other_towers, prefix_of_blocks, split_by_block
from shortlm.sizes import gib
from shortlm.sweep.decisions import Path, path_of, single_removals
from shortlm.units import BLOCK, Mask


@dataclass(frozen=True)
class ModelSize:
    """Bytes of a model's parts in the compute type, and what its last matrix product takes."""

    blocks: list[int]
    block_parameters: int  # of the largest block
    largest_weight: int  # of all blocks
    table: int  # the embeddings
    head: int
    rest: int
    hidden: int
    vocabulary: int
    tied: bool
    copies: int = 1  # of a block while it is read: 2 if its files hold it under other names
    towers: int = 0  # of a composite model, which are not read where blocks stay on disk

    @property
    def total(self) -> int:
        """All weights."""
        return sum(self.blocks) + self.table + (0 if self.tied else self.head) + self.rest + self.towers

    @classmethod
    def of(
        cls, config: Any, dtype: torch.dtype, trust_remote_code: bool = False, checkpoint: Checkpoint | None = None
    ) -> ModelSize:
        """From a config alone; the files tell whether their names are the module's."""
        model: Any = meta_model(config, trust_remote_code)
        anatomy = find_anatomy(model)
        counts = [sum(p.numel() for p in block.parameters()) for block in anatomy.blocks]
        table: Any = model.get_input_embeddings().weight
        head: Any = anatomy.head.weight
        tied = table is head
        outside = sum(p.numel() for p in model.parameters()) - sum(counts)
        unused = of_other_towers(model, anatomy.blocks_path)
        towers = sum(p.numel() for name, p in model.named_parameters() if name in unused)
        rest = outside - table.numel() - (0 if tied else head.numel())
        copies, largest = 1, max(p.numel() for block in anatomy.blocks for p in block.parameters())
        if checkpoint:
            inside, _ = split_by_block(checkpoint, prefix_of_blocks(model, checkpoint), len(counts))
            copies = 1 if inside[0].keys() == anatomy.blocks[0].state_dict().keys() else 2
        width = dtype.itemsize
        return cls(
            [n * width for n in counts], max(counts), largest * width, table.numel() * width, head.numel() * width,
            (rest - towers) * width, table.shape[1], len(head), tied, copies, towers * width,
        )  # fmt: skip


@dataclass(frozen=True)
class Work:
    """What is asked of the sweep."""

    sequences: int
    tokens: int
    parts: tuple[str, ...] = (BLOCK,)  # what is scored of every block
    removals: bool = False  # the loss without each of them
    masks: tuple[Mask, ...] = ()  # the losses without these units
    kept_bytes: int = 0  # states that may be kept from one sweep to the next
    held_bytes: int = 0  # what else is held from one sweep to the next
    states: bool = False  # something is computed from the hidden states
    partial_calls: int = 0  # of each block without a sublayer, for each batch: for states around sublayers
    gradients: bool = False
    weight_gradients: bool = False
    turns: int = 1  # backward sweeps, each over other batches of the sequences
    check: bool = False  # some sequences also go through the model's own forward

    @property
    def forward(self) -> bool:
        """Whether sequences go through the model at all; weights alone may be asked for."""
        return self.sequences > 0

    def paths(self, n_blocks: int) -> list[Path]:
        """All that goes through the blocks, the whole model first."""
        singles = single_removals(n_blocks, self.parts) if self.removals else []
        return [path_of(mask, n_blocks) for mask in (frozenset(), *singles, *self.masks)]


@dataclass(frozen=True)
class Schedule:
    """How the sweep will go, and what it will take. Block forwards are those of the sweep itself."""

    streamed: bool
    batch_size: int
    batches_per_pass: int
    passes: int  # over the blocks, from disk if streamed
    peak_bytes: int
    parts: dict[str, int]  # what the peak is made of
    bytes_read: int
    block_forwards: int
    lm_head_calls: int
    flops: float
    most: int | None = None  # states of a batch that are in memory together; from disk: masks that go through together
    chunks: int = 1  # in which the masks go through blocks from disk, each by passes of its own
    checked: int = 0  # sequences that go through the model's own forward too
    exact: bool = True

    def described(self) -> str:
        """The schedule in one line."""
        where = "blocks from disk" if self.streamed else "model in memory"
        times = self.passes * self.chunks
        passes = f"{times} pass{'es' if times > 1 else ''}"
        return (
            f"{where}, {self.batch_size} sequences at a time, {passes}, {self.block_forwards:,} block forwards, "
            f"{gib(self.bytes_read)} read, peak {gib(self.peak_bytes)} ({self.listed()})"
        )

    def listed(self) -> str:
        """What the peak is made of."""
        return ", ".join(f"{name} {gib(size)}" for name, size in self.parts.items())
