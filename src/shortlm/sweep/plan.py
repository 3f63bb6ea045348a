"""The plan of a sweep within a memory budget: batches, passes over the blocks, bytes, work.

Everything follows from the sizes of the model's parts, what is asked (`Work`), and the cost of a block's call
(trace.py). Hidden states that don't fit together are carried through the blocks in several passes.

Shapes: S sequences of T tokens, B of them in a call, L blocks, D hidden, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

import psutil
import torch

from shortlm.checkpoint import Checkpoint, block_prefix
from shortlm.errors import ScoreError
from shortlm.model import ModelFiles, find_anatomy, free_memory, meta_model, parted
from shortlm.sizes import byte_size, gib
from shortlm.sweep.blocks import BlockCaller, working_tokens
from shortlm.sweep.tail import CHUNK, CHUNK_ELSEWHERE
from shortlm.sweep.trace import CallCost, call_cost
from shortlm.text import Windows

FREE_SHARE = 0.8  # of the free memory is what we take without a budget


@dataclass(frozen=True)
class ModelSize:
    """Bytes of a model's parts in the compute type, and what its last matrix product takes."""

    blocks: list[int]
    block_parameters: int  # of the largest block
    table: int  # the embeddings
    head: int
    rest: int
    hidden: int
    vocabulary: int
    tied: bool
    copies: int = 1  # of a block while it is read: 2 if its files hold it under other names

    @property
    def total(self) -> int:
        """All weights."""
        return sum(self.blocks) + self.table + (0 if self.tied else self.head) + self.rest

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
        rest = outside - table.numel() - (0 if tied else head.numel())
        copies = 1
        if checkpoint:
            inside, _ = parted(checkpoint, block_prefix(checkpoint, anatomy.blocks_path, len(counts)), len(counts))
            copies = 1 if inside[0].keys() == anatomy.blocks[0].state_dict().keys() else 2
        width = dtype.itemsize
        return cls(
            [n * width for n in counts], max(counts), table.numel() * width, head.numel() * width,
            rest * width, table.shape[1], len(head), tied, copies,
        )  # fmt: skip


@dataclass(frozen=True)
class Work:
    """What is asked of the sweep."""

    sequences: int
    tokens: int
    removals: bool = False  # the loss without each block
    states: bool = False  # something is computed from the hidden states
    gradients: bool = False
    weight_gradients: bool = False
    partings: int = 1  # ways of parting the sequences that gradients are taken by

    @property
    def forward(self) -> bool:
        """Whether sequences go through the model at all; weights alone may be asked for."""
        return self.sequences > 0


@dataclass(frozen=True)
class Plan:
    """How the sweep will go, and what it will take."""

    streamed: bool
    batch_size: int
    batches_per_pass: int
    passes: int  # over the blocks, from disk if streamed
    peak_bytes: int
    parts: dict[str, int]  # what the peak is made of
    bytes_read: int
    block_forwards: int
    heads: int
    flops: float
    exact: bool = True


def auto_batch_size(sequences: int, tokens: int, device: torch.device) -> int:
    """Sequences in one call so that it is well filled, in batches of nearly equal size."""
    if not sequences:
        return 1
    largest = max(1, working_tokens(device) // tokens)
    return ceil(sequences / ceil(sequences / largest))


class Planner:
    """Makes plans for one model on one device; `base` bytes are taken before anything is loaded."""

    def __init__(
        self, config: Any, size: ModelSize, dtype: torch.dtype, device: torch.device, base: int, **opening: Any
    ):
        self.config, self.size, self.dtype, self.device, self.base = config, size, dtype, device, base
        self.opening = opening
        self.costs: dict[tuple[int, int, bool], CallCost] = {}

    @classmethod
    def of(cls, files: ModelFiles) -> Planner:
        """For files on disk: what they hold under other names than the module is read, then converted."""
        trust = files.settings.trust_remote_code
        size = ModelSize.of(files.config, files.dtype, trust, files.checkpoint)
        base = taken_memory(files.device)
        return cls(files.config, size, files.dtype, files.device, base, trust_remote_code=trust)

    def within(self, work: Work, budget: int | None, streamed: bool, batch_size: int = 0) -> Plan:
        """The plan with the fewest passes whose peak is within `budget` bytes (None: no limit).

        A given `batch_size` is kept; 0 lets the planner choose. Raises ScoreError, saying how much is needed, if
        there is no such plan.
        """
        largest = batch_size or self.batch_size(work)
        smaller = [] if batch_size else [largest >> k for k in range(1, largest.bit_length())]
        for size in [largest, *smaller]:
            batches = max(1, ceil(work.sequences / size))
            for passes in range(1, batches + 1) if streamed else (1,):
                plan = self.plan(work, streamed, size, ceil(batches / passes) if streamed else 1)
                if budget is None or plan.peak_bytes <= budget:
                    return plan
        assert budget is not None
        raise ScoreError(
            f"--memory {gib(budget)} is too little: {gib(plan.peak_bytes)} are needed ({_listed(plan.parts)}); "
            f"{_advice(work, streamed)}"
        )

    def batch_size(self, work: Work) -> int:
        """How many sequences run fastest together."""
        return auto_batch_size(work.sequences, work.tokens, self.device)

    def plan(self, work: Work, streamed: bool, batch_size: int, batches_per_pass: int) -> Plan:
        """What this way of doing it takes."""
        n_blocks, batches = len(self.size.blocks), ceil(work.sequences / batch_size)
        passes = max(1, ceil(batches / batches_per_pass)) if streamed else 1
        kept = work.gradients and (not streamed or passes == 1)  # the forward sweep leaves its states to the backward
        parts = self._parts(work, streamed, batch_size, min(work.sequences, batch_size * batches_per_pass), kept)
        forwards = (n_blocks * (n_blocks + 1) // 2 if work.removals else n_blocks) * work.forward
        heads = (n_blocks + 1 if work.removals else 1) * work.forward
        backwards = work.partings * work.gradients
        walks = backwards - kept
        read = self.size.total
        if streamed:
            read = sum(self.size.blocks) * (passes + walks + backwards) + self.size.rest
            if work.forward:  # one block is called before all others, to see what it returns
                read += self.size.head * (passes + backwards) + max(self.size.blocks)
        calls = batches * (forwards + n_blocks * (walks + backwards * (1 + work.weight_gradients)))
        cost = self._cost(batch_size, work.tokens, work.weight_gradients) if work.forward else None
        flops = 0.0
        if cost:
            again = 3 * backwards * (1 + work.weight_gradients)  # recomputed, then twice as much backwards
            head = 2.0 * self.size.hidden * self.size.vocabulary * (work.tokens - 1)
            flops = cost.flops / batch_size * (forwards + n_blocks * (walks + again)) + head * (heads + 4 * backwards)
        return Plan(
            streamed, batch_size, batches_per_pass, passes, sum(parts.values()), parts, read, calls, heads * batches,
            flops * work.sequences, cost is None or cost.exact,
        )  # fmt: skip

    def _parts(self, work: Work, streamed: bool, batch_size: int, in_pass: int, kept: bool) -> dict[str, int]:
        """The peak's parts, in the phase (blocks, head, or gradients) that takes most."""
        weights = (1 + self.size.copies) * max(self.size.blocks) + self.size.rest if streamed else self.size.total
        if not work.forward:
            return {"process": self.base, "weights": weights}
        cost = self._cost(batch_size, work.tokens, work.weight_gradients)
        state = cost.state_bytes // batch_size  # of one sequence
        n_blocks, carried = len(self.size.blocks), in_pass if streamed else batch_size
        states = state * carried * (n_blocks + 1 if work.removals else 1) + state * batch_size
        states += self._rows(carried * work.tokens) * streamed
        all_states = state * work.sequences * (n_blocks + 1) + self._rows(work.sequences * work.tokens) * streamed
        floats = 5 * batch_size * work.tokens * self.size.hidden * 4 if work.states else 0
        logits = 3 * 4 * CHUNK.get(self.device.type, CHUNK_ELSEWHERE)
        forward = states + all_states * kept
        phases = [
            {"weights": weights, "hidden states": forward, "one call": max(cost.forward_bytes, floats)},
            {
                "weights": self.size.head + self.size.rest if streamed else weights, "hidden states": forward,
                "one call": logits,
            },
        ]  # fmt: skip
        if work.gradients:
            sums = 4 * self.size.block_parameters + max(self.size.blocks) if work.weight_gradients else 0
            phases.append(
                {
                    "weights": weights, "hidden states": all_states + 2 * state * work.sequences,
                    "one call": cost.backward_bytes or 3 * cost.forward_bytes, "gradients": sums,
                }
            )  # fmt: skip
        return {"process": self.base, **max(phases, key=lambda phase: sum(phase.values()))}

    def _rows(self, tokens: int) -> int:
        """Bytes of the embeddings' rows for so many tokens, at most."""
        return min(tokens, self.size.vocabulary) * self.size.table // self.size.vocabulary

    def _cost(self, batch: int, tokens: int, gradients: bool) -> CallCost:
        key = (batch, tokens, gradients)
        if key not in self.costs:
            self.costs[key] = call_cost(self.config, self.dtype, batch, tokens, gradients, **self.opening)
        return self.costs[key]


Batches = list[tuple[torch.Tensor, torch.Tensor]]


def batched(
    caller: BlockCaller, windows: Windows, batch_size: int = 0, plan: Plan | None = None
) -> tuple[Batches, int]:
    """The windows in batches, and how many go through the blocks in one pass: by the plan, or as runs fastest."""
    size = plan.batch_size if plan else batch_size or auto_batch_size(*windows.shape, caller.device)
    batches = windows.batches(size)
    return batches, plan.batches_per_pass if plan else len(batches) if caller.disk else 1


def plan_for(files: ModelFiles, work: Work, batch_size: int = 0) -> Plan | None:
    """The plan for a model's files by its settings; None where all is in memory and no budget was given.

    `stream` of "auto" means: in memory if that fits the budget (or, without one, the free memory), else from disk.
    Raises ScoreError if the budget is too small.
    """
    settings = files.settings
    budget = byte_size(settings.memory) if settings.memory else None
    if budget is None and (settings.stream == "off" or (settings.stream == "auto" and files.fits())):
        return None
    planner = Planner.of(files)
    if settings.stream != "on" and budget is not None:
        try:
            return planner.within(work, budget, False, batch_size)
        except ScoreError:
            if settings.stream == "off":
                raise
    limit = int(FREE_SHARE * free_memory(files.device)) + planner.base
    return planner.within(work, budget or limit, True, batch_size)


def taken_memory(device: torch.device) -> int:
    """Bytes that this process takes already, in the memory that a budget is about."""
    return psutil.Process().memory_info().rss if device.type == "cpu" else 0


def described(plan: Plan) -> str:
    """The plan in one line."""
    where = "blocks from disk" if plan.streamed else "model in memory"
    passes = f"{plan.passes} pass{'es' if plan.passes > 1 else ''}"
    return (
        f"{where}, {plan.batch_size} sequences at a time, {passes}, {plan.block_forwards:,} block forwards, "
        f"{plan.bytes_read / 1e9:.1f} GB read, peak {gib(plan.peak_bytes)} ({_listed(plan.parts)})"
    )


def _listed(parts: dict[str, int]) -> str:
    return ", ".join(f"{name} {gib(size)}" for name, size in parts.items())


def _advice(work: Work, streamed: bool) -> str:
    if not streamed:
        return "give that much, or --stream on"
    return "give that much, or fewer --sequences" if work.gradients else "give that much, or a smaller --length"
