"""Schedules a sweep within a memory budget: batches, passes over the blocks, bytes, work.

Everything follows from the sizes of the model's parts, what is asked, and the cost of a block's call (trace.py).
Hidden states that don't fit together are carried through the blocks in several passes.

Shapes: S sequences of T tokens, B of them in a call, L blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from typing import Any

import psutil
import torch

from shortlm.errors import ScoreError
from shortlm.model import ModelFiles, fits, free_memory, tokens_per_call
from shortlm.sizes import byte_size, gib
from shortlm.sweep.blocks import BlockCaller
from shortlm.sweep.check import checked_sequences
from shortlm.sweep.decisions import Path, count_forwards, in_chunks
from shortlm.sweep.frontier import most_alive, most_groups
from shortlm.sweep.schedule import ModelSize, Schedule, Work
from shortlm.sweep.tail import CHUNK, CHUNK_ELSEWHERE, NARROWEST
from shortlm.sweep.trace import CallCost, call_cost
from shortlm.text import Windows

FREE_SHARE = 0.8  # of the free memory is what we take without a budget
MARGIN = 0.2  # of what is planned beyond the process itself: the heap's gaps, kernels' own memory
FORWARD_MODE = 90 * 2**20  # what torch loads when it first differentiates forwards
AROUND_SUBLAYERS = 4  # states that are held for it: outputs without each sublayer, what enters the FFN in either call
Batches = list[tuple[torch.Tensor, torch.Tensor]]
Parts = dict[str, int]


@dataclass(frozen=True)
class _Counts:
    """How often things are done for each batch."""

    forwards: int  # blocks, in the forward sweep
    lm_head_calls: int
    walks: int  # over all blocks again, for states that weren't kept
    backwards: int  # over all blocks, with gradients
    shares: int  # over all blocks, for what each sequence adds to their gradients
    partial: int  # over all blocks, without one of their sublayers

    @classmethod
    def of(cls, work: Work, tree: _Tree, kept: bool) -> _Counts:
        backwards = work.turns * work.gradients
        return cls(
            tree.forwards * work.forward, tree.leaves * work.forward,
            backwards - kept, backwards, backwards * work.weight_gradients * len(work.parts), work.partial_calls,
        )  # fmt: skip


@dataclass(frozen=True)
class _Tree:
    """The prefix tree of what is asked: block forwards, distinct paths, and states that are alive at once."""

    forwards: int
    leaves: int
    alive: int

    @classmethod
    def of(cls, paths: list[Path], n_blocks: int, streamed: bool, together: int, most: int | None) -> _Tree:
        chunks = in_chunks(paths, most) if streamed and most else [sorted(set(paths))]
        leaves = sum(map(len, chunks))
        if streamed:
            alive = max(map(len, chunks))
        else:
            alive = most_alive(paths, n_blocks, together, most or most_groups(n_blocks, together))
        return cls(sum(map(count_forwards, chunks)), leaves, alive)


def auto_batch_size(sequences: int, tokens: int, device: torch.device) -> int:
    """Sequences in one call so that it is well filled, in batches of nearly equal size."""
    if not sequences:
        return 1
    largest = max(1, tokens_per_call(device) // tokens)
    return ceil(sequences / ceil(sequences / largest))


class Scheduler:
    """Makes schedules for one model on one device; `base` bytes are taken before anything is loaded."""

    def __init__(
        self, config: Any, size: ModelSize, dtype: torch.dtype, device: torch.device, base: int, **opening: Any
    ):
        self.config, self.size, self.dtype, self.device, self.base = config, size, dtype, device, base
        self.n_blocks, self.block = len(size.blocks), max(size.blocks)
        self.opening = opening
        self.costs: dict[tuple[int, int, bool], CallCost] = {}
        self.trees: dict[tuple[Any, ...], _Tree] = {}

    @classmethod
    def of(cls, files: ModelFiles) -> Scheduler:
        """For files on disk: what they hold under other names than the module is read, then converted."""
        trust = files.settings.trust_remote_code
        size = ModelSize.of(files.config, files.dtype, trust, files.checkpoint)
        base = taken_memory(files.device)
        return cls(files.config, size, files.dtype, files.device, base, trust_remote_code=trust)

    def within(self, work: Work, budget: int | None, streamed: bool, batch_size: int = 0) -> Schedule:
        """The schedule with the fewest passes whose peak is within `budget` bytes (None: no limit).

        A given `batch_size` is kept; 0 lets the scheduler choose. Raises ScoreError, saying how much is needed, if
        there is no such schedule.
        """
        largest = batch_size or self.batch_size(work)
        smaller = [] if batch_size else [largest >> k for k in range(1, largest.bit_length())]
        for size in [largest, *smaller]:
            batches = max(1, ceil(work.sequences / size))
            for passes, most in self._ways(work, streamed, batches):
                schedule = self.schedule(work, streamed, size, ceil(batches / passes), most)
                if budget is None or self._needed(schedule) <= budget:
                    return schedule
        assert budget is not None
        way_out = "--stream on" if not streamed else "fewer --sequences" if work.gradients else "a smaller --length"
        raise ScoreError(
            f"--memory {gib(budget)} is too little: {gib(self._needed(schedule))} are needed "
            f"({schedule.listed()}, and room for error); give that much, or {way_out}"
        )

    def _ways(self, work: Work, streamed: bool, batches: int) -> Iterator[tuple[int, int | None]]:
        """Passes over the blocks, and how many states (from disk: masks) are carried along: the fastest first."""
        for passes in range(1, batches + 1) if streamed else (1,):
            yield passes, None
        most = self._tree(work, streamed, 1, None).alive
        while streamed and most > 1:
            most = ceil(most / 2)
            yield batches, most
        if not streamed:
            yield 1, 1

    def _needed(self, schedule: Schedule) -> int:
        """The peak, and room for what the schedule can't see, so that a budget is kept."""
        return int(schedule.peak_bytes + MARGIN * (schedule.peak_bytes - self.base))

    def settled(self, work: Work, stream: str, budget: int | None, free: int | None, batch_size: int = 0) -> Schedule:
        """The schedule by a user's wishes: in memory if that fits the budget (without one: if the weights take at most
        two thirds of the `free` bytes, the rest being for states), else from disk.

        `free` is None where the device isn't here. Raises ScoreError if the budget is too small.
        """
        limit = budget if budget or free is None else int(FREE_SHARE * free) + self.base
        if stream == "off" or (stream == "auto" and not budget and (free is None or fits(self.size.total, free))):
            return self.within(work, budget, False, batch_size)
        if stream == "auto" and budget:
            with suppress(ScoreError):
                return self.within(work, budget, False, batch_size)
        return self.within(work, limit, True, batch_size)

    def batch_size(self, work: Work) -> int:
        """How many sequences run fastest together."""
        return auto_batch_size(work.sequences, work.tokens, self.device)

    def schedule(
        self, work: Work, streamed: bool, batch_size: int, batches_per_pass: int, most: int | None = None
    ) -> Schedule:
        """What this way of doing it takes; `most` as in `sweep`."""
        batches, together = ceil(work.sequences / batch_size), batches_per_pass if streamed else 1
        passes = max(1, ceil(batches / together)) if streamed else 1
        kept = work.gradients and (not streamed or passes == 1)  # the forward sweep leaves its states to the backward
        tree = self._tree(work, streamed, batch_size, most)
        counts = _Counts.of(work, tree, kept)
        parts = self._parts(work, streamed, batch_size, min(work.sequences, batch_size * together), kept, tree)
        chunks = ceil(tree.leaves / most) if streamed and most else 1
        checked = checked_sequences(batches, tree.leaves > 1, batch_size, streamed) if work.check else 0
        calls = counts.forwards + self.n_blocks * (counts.walks + counts.backwards + counts.shares + counts.partial)
        return Schedule(
            streamed=streamed, batch_size=batch_size, batches_per_pass=together, passes=passes,
            peak_bytes=sum(parts.values()), parts=parts,
            bytes_read=self._bytes_read(work, counts, passes * chunks + bool(checked)) if streamed else self.size.total,
            block_forwards=calls * batches, lm_head_calls=counts.lm_head_calls * batches, checked=checked,
            most=most, chunks=chunks,
            flops=self._flops(work, counts, batch_size, checked),
            exact=not work.forward or self._cost(work, batch_size).exact,
        )  # fmt: skip

    def _bytes_read(self, work: Work, counts: _Counts, passes: int) -> int:
        read = sum(self.size.blocks) * (passes + counts.walks + counts.backwards) + self.size.rest
        if work.forward:  # one block is called before all others, to see what it returns
            read += self.size.head * (passes + counts.backwards) + self.block
        return read

    def _flops(self, work: Work, counts: _Counts, batch_size: int, checked: int) -> float:
        if not work.forward:
            return 0.0
        again = 3 * (counts.backwards + counts.shares)  # recomputed, then twice as much backwards
        blocks = counts.forwards + self.n_blocks * (counts.walks + again + counts.partial)
        head = 2.0 * self.size.hidden * self.size.vocabulary * (work.tokens - 1)
        of_sequence = self._cost(work, batch_size).flops / batch_size * blocks
        check = checked * (self._cost(work, batch_size).flops / batch_size * self.n_blocks + 2 * head)
        return work.sequences * (of_sequence + head * (counts.lm_head_calls + 4 * counts.backwards)) + check

    def _tree(self, work: Work, streamed: bool, batch_size: int, most: int | None) -> _Tree:
        together = max(1, tokens_per_call(self.device) // max(1, batch_size * work.tokens))
        key = (work, streamed, together, most)
        if key not in self.trees:
            self.trees[key] = _Tree.of(work.paths(self.n_blocks), self.n_blocks, streamed, together, most)
        return self.trees[key]

    def _parts(self, work: Work, streamed: bool, batch_size: int, in_pass: int, kept: bool, tree: _Tree) -> Parts:
        """The peak's parts, in the phase (blocks, head, or gradients) that takes most."""
        weights = (1 + self.size.copies) * self.block + self.size.rest if streamed else self.size.total
        if not work.forward:
            return {"process": self.base, "weights": weights}
        carried = self._carried(work, batch_size, in_pass if streamed else batch_size, tree)
        carried += self._all_states(work, batch_size) * kept
        rows = self._rows(in_pass * work.tokens) * streamed
        head = self.size.head + self.size.rest if streamed else weights
        logits = self._logits(batch_size * (work.tokens - 1))
        phases = [
            {"weights": weights, "hidden states": carried + rows, "one call": self._one_call(work, batch_size)},
            {"weights": head, "hidden states": carried + rows, "one call": logits},
        ]
        if work.gradients:
            rows = self._rows(work.sequences * work.tokens) * streamed
            phases.append({"weights": weights} | self._backwards(work, batch_size, rows))
        return {"process": self.base, **max(phases, key=lambda phase: sum(phase.values()))}

    def _logits(self, rows: int) -> int:
        """A chunk of logits, in float32 and on its way there."""
        chunk = CHUNK.get(self.device.type, CHUNK_ELSEWHERE)
        return 3 * 4 * rows * min(self.size.vocabulary, max(NARROWEST, chunk // rows))

    def _carried(self, work: Work, batch_size: int, sequences: int, tree: _Tree) -> int:
        """States of so many sequences, one per prefix that is alive, those of a call, and those kept between sweeps."""
        state = self._cost(work, batch_size).state_bytes // batch_size
        return state * (sequences * tree.alive + batch_size) + work.kept_bytes + work.held_bytes

    def _all_states(self, work: Work, batch_size: int) -> int:
        """h_0 .. h_L of all sequences."""
        return self._cost(work, batch_size).state_bytes // batch_size * work.sequences * (self.n_blocks + 1)

    def _one_call(self, work: Work, batch_size: int) -> int:
        """A block's call (in which a kernel packs a weight anew), or what criteria make of its states in float32; and
        the states around its sublayers.
        """
        cost = self._cost(work, batch_size)
        floats = 5 * batch_size * work.tokens * self.size.hidden * 4 if work.states else 0
        inside = AROUND_SUBLAYERS * cost.state_bytes if work.partial_calls else 0
        return max(cost.forward_bytes + self.size.largest_weight, floats) + inside

    def _backwards(self, work: Work, batch_size: int, rows: int) -> Parts:
        cost = self._cost(work, batch_size)
        states = self._all_states(work, batch_size) + 2 * cost.state_bytes // batch_size * work.sequences
        sums = self._weight_gradients() if work.weight_gradients else 0
        call = (cost.backward_bytes or 3 * cost.forward_bytes) + self.size.largest_weight
        call += AROUND_SUBLAYERS * cost.state_bytes if work.partial_calls else 0
        return {"hidden states": states + rows, "one call": call, "gradients": sums}

    def _weight_gradients(self) -> int:
        """Sums in float32, a direction in the weights, two weights' gradients on their way, and torch's own code."""
        return 4 * self.size.block_parameters + self.block + 2 * self.size.largest_weight + FORWARD_MODE

    def _rows(self, tokens: int) -> int:
        """Bytes of the embeddings' rows for so many tokens, at most."""
        return min(tokens, self.size.vocabulary) * self.size.table // self.size.vocabulary

    def _cost(self, work: Work, batch_size: int) -> CallCost:
        key = (batch_size, work.tokens, work.weight_gradients)
        if key not in self.costs:
            self.costs[key] = call_cost(self.config, self.dtype, *key, **self.opening)
        return self.costs[key]


def batched(
    caller: BlockCaller, windows: Windows, batch_size: int = 0, schedule: Schedule | None = None
) -> tuple[Batches, int]:
    """The windows in batches, and how many go through the blocks in one pass: by the schedule, or as runs fastest."""
    size = schedule.batch_size if schedule else batch_size or auto_batch_size(*windows.shape, caller.device)
    batches = windows.batches(size)
    return batches, schedule.batches_per_pass if schedule else len(batches) if caller.disk else 1


def schedule_for(files: ModelFiles, work: Work, batch_size: int = 0) -> Schedule | None:
    """The schedule for a model's files by its settings; None where all is in memory and no budget was given.

    Raises ScoreError if the budget is too small.
    """
    settings = files.settings
    budget = byte_size(settings.memory) if settings.memory else None
    if budget is None and (settings.stream == "off" or (settings.stream == "auto" and files.fits())):
        return None
    return Scheduler.of(files).settled(work, settings.stream, budget, free_memory(files.device), batch_size)


def taken_memory(device: torch.device) -> int:
    """Bytes that this process takes already, in the memory that a budget is about."""
    if device.type == "cpu":
        return psutil.Process().memory_info().rss
    return _with_workspaces(device) if device.type == "cuda" and torch.cuda.is_available() else 0


def _with_workspaces(device: torch.device) -> int:
    """cuBLAS takes memory at its first product and at its first gradient, and keeps it (32 MiB each on Hopper)."""
    x = torch.ones(8, 8, device=device, requires_grad=True)
    torch.nn.functional.linear(x, x).sum().backward()
    del x
    return torch.cuda.memory_allocated(device)
