"""Optimizer steps made of micro-batches, the same rows per step whatever the number of processes.

A step takes `batch` rows. They are sorted by length and split into micro-batches of about equal padded size, so that
little is padded and the gradient, a sum over all targets of the step, stays what it was. Every process
composes all steps and computes its share of each.

Shapes: B rows of a micro-batch, T tokens of its longest row, N positions of B x T (flattened) with a label.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch.utils.data import IterableDataset

from shortlm.text.mixture import Mixture
from shortlm.text.records import IGNORED, Row

MicroBatch = dict[str, Any]


@dataclass(frozen=True)
class Position:
    """Where training stands after some steps: what was computed, and where the data goes on."""

    step: int
    tokens: int
    targets: int
    padding: int
    data: dict[str, Any]


class Steps(IterableDataset):
    """Endless micro-batches of this process, step after step.

    `count` micro-batches make a step, over all `processes`. `positions` keeps what is needed to go on after the
    last few steps, since data is fetched ahead of training.
    """

    def __init__(self, rows: Mixture, batch: int, count: int, pad: int, rank: int = 0, processes: int = 1):
        super().__init__()
        self._rows, self._batch, self._count, self._pad = rows, batch, count, pad
        self._rank, self._processes = rank, processes
        self.positions = {0: Position(0, 0, 0, 0, rows.state())}

    def restore(self, position: Position) -> None:
        """Go on after `position.step` steps."""
        self._rows.restore(position.data)
        self.positions = {position.step: position}

    def __iter__(self) -> Iterator[MicroBatch]:
        while True:
            yield from self._step()[self._rank :: self._processes]

    def _step(self) -> list[MicroBatch]:
        rows = [self._rows.next() for _ in range(self._batch)]
        groups = split_evenly(rows, self._count)
        targets = sum(row.targets for row in rows)
        last = self.positions[max(self.positions)]
        tokens = sum(len(row.ids) for row in rows)
        padding = sum(padded(group) for group in groups) - tokens
        self.positions[last.step + 1] = Position(
            last.step + 1, last.tokens + tokens, last.targets + targets, last.padding + padding, self._rows.state()
        )
        self.positions.pop(last.step - 4, None)
        return [micro_batch(group, self._pad) | {"step_targets": max(1, targets)} for group in groups]


def padded(group: list[Row]) -> int:
    """Tokens of a micro-batch with its padding."""
    return len(group) * max(len(row.ids) for row in group)


def split_evenly(rows: list[Row], count: int) -> list[list[Row]]:
    """`count` groups of neighbours by length whose largest padded size is as small as can be."""
    ordered = sorted(rows, key=lambda row: -len(row.ids))
    low, high = max(len(ordered[0].ids), math.ceil(sum(len(row.ids) for row in rows) / count)), padded(ordered)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if len(_packed(ordered, middle)) <= count else (middle + 1, high)
    groups = _packed(ordered, high)
    while len(groups) < count:  # every process has something to do
        largest = max(range(len(groups)), key=lambda i: (len(groups[i]) > 1, padded(groups[i])))
        half = len(groups[largest]) // 2
        groups[largest : largest + 1] = [groups[largest][:half], groups[largest][half:]]
    return groups


def _packed(ordered: list[Row], size: int) -> list[list[Row]]:
    """Groups of at most `size` padded tokens, longest rows first."""
    groups: list[list[Row]] = []
    for row in ordered:
        if groups and (len(groups[-1]) + 1) * len(groups[-1][0].ids) <= size:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def micro_batch(group: list[Row], pad: int) -> MicroBatch:
    """ids_BT padded on the right; labelled_N, the flat positions with a label, and targets_N, the labels.

    No mask goes with it: causal attention never looks at what is padded behind. Documents that are to be kept apart
    get positions that begin anew, from which transformers makes its mask of blocks.
    """
    longest = max(len(row.ids) for row in group)
    ids_BT = torch.tensor([row.ids + [pad] * (longest - len(row.ids)) for row in group])
    following_BT = torch.tensor([row.next_labels() + [IGNORED] * (longest - len(row.ids)) for row in group]).flatten()
    labelled_N = (following_BT != IGNORED).nonzero()[:, 0]
    batch = {"input_ids": ids_BT, "labelled": labelled_N, "targets": following_BT[labelled_N]}
    if any(row.starts for row in group):
        batch["position_ids"] = torch.tensor([_positions(row, longest) for row in group])
    return batch


def _positions(row: Row, longest: int) -> list[int]:
    begins = sorted({0, *row.starts, len(row.ids), longest})
    return [i for begin, end in pairwise(begins) for i in range(end - begin)]


def micro_batch_count(rows: list[Row], batch: int, micro_tokens: int, processes: int) -> int:
    """Micro-batches per step, so that one has about `micro_tokens`; a multiple of the processes."""
    mean = sum(len(row.ids) for row in rows) / len(rows)
    per_process = math.ceil(batch * mean / micro_tokens / processes)
    return processes * max(1, min(per_process, batch // processes))


def validation_batches(rows: Sequence[Row], micro_tokens: int, pad: int) -> list[MicroBatch]:
    """Validation rows, longest first, about `micro_tokens` at a time."""
    return [micro_batch(group, pad) for group in _packed(sorted(rows, key=lambda r: -len(r.ids)), micro_tokens)]
