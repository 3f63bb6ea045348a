"""Candidates of a race: who is still racing, who is settled, and the comparison that lets them go.

Shapes: C candidates, S sequences seen so far, T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

import torch

from shortlm.statistics import mean_stderr
from shortlm.sweep import Evaluator

ROUNDS = 16
ROUNDS_FROM_DISK = 4  # each round reads all blocks
MARGIN = 3.0  # standard errors; benchmarks/race.py measures how often the choice is that of the full sweep


@dataclass
class Candidates:
    """Who is still racing, and every token's loss without each of them."""

    wanted: int
    total: int  # sequences in all
    racing: list[int]
    settled: list[int] = field(default_factory=list)
    nats_CST: torch.Tensor = field(default_factory=lambda: torch.empty(0))

    def seen(self, nats_CST: torch.Tensor) -> None:
        """More sequences have been computed for all that race."""
        self.nats_CST = torch.cat([self.nats_CST, nats_CST], dim=1) if len(self.nats_CST) else nats_CST

    def eliminate(self) -> None:
        """Let go who is clearly worse than the last place wanted, settle who is clearly better than the next."""
        wanted = self.wanted - len(self.settled)
        if 0 < wanted < len(self.racing):
            order = self.nats_CST.sum((1, 2)).argsort(stable=True).tolist()
            inside, outside = order[:wanted], order[wanted:]
            worse = {c for c in outside if self._clearly(inside[-1], c)}
            better = {c for c in inside if self._clearly(c, outside[0])}
            self.settled += [self.racing[c] for c in better]
            self._keep([c for c in range(len(self.racing)) if c not in worse | better])
        if self.wanted - len(self.settled) == len(self.racing):
            self.settled, self.racing = [*self.settled, *self.racing], []
        elif len(self.settled) == self.wanted:
            self.racing = []

    def _clearly(self, better: int, worse: int) -> bool:
        """The larger of two standard errors counts: over tokens, and over sequences (whose tokens go together)."""
        difference_ST = self.nats_CST[worse] - self.nats_CST[better]
        samples = (difference_ST.flatten(), difference_ST.mean(1))
        error = max(float(mean_stderr(sample[None])) if len(sample) > 1 else inf for sample in samples)
        left = 1 - len(difference_ST) / self.total
        return float(difference_ST.mean()) > MARGIN * error * left**0.5

    def _keep(self, candidates: list[int]) -> None:
        self.racing = [self.racing[c] for c in candidates]
        self.nats_CST = self.nats_CST[candidates]


def rounds_for(evaluator: Evaluator) -> int:
    """How many rounds there are at most; from disk each of them reads all blocks."""
    return ROUNDS_FROM_DISK if evaluator.caller.disk else ROUNDS


def rounds_of(parts: int, most: int) -> list[list[int]]:
    """The parts of each round, in nearly equal shares."""
    count = min(parts, most)
    return [list(range(parts * r // count, parts * (r + 1) // count)) for r in range(count)]


def selected(candidates: Candidates, nats_L: torch.Tensor) -> list[int]:
    """Those settled, and the best of those that ran to the end."""
    rest = sorted(candidates.racing, key=lambda i: (float(nats_L[i]), i))
    return sorted([*candidates.settled, *rest[: candidates.wanted - len(candidates.settled)]])
