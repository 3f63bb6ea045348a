"""The sets that are tried for one question: their losses, remembered, and the trail of every way that looks for one.

Shapes: S sequences, M masks.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import torch

from shortlm.choose.candidates import Candidates, rounds_for, rounds_of
from shortlm.choose.question import Question
from shortlm.errors import ScoreError
from shortlm.statistics import mean_stderr
from shortlm.sweep import Evaluator, Losses
from shortlm.units import Mask, Unit


@dataclass
class Step:
    """A set that was the best one so far, and the block forwards that its way had spent when it was found."""

    mask: Mask
    forwards: float


class AfterRepair(Protocol):
    """Repairs sets of units without training."""

    def losses(self, sets: Sequence[Sequence[Unit]]) -> list[float]:
        """Nats per token without each of these sets, repaired."""
        ...

    def block_forwards(self, sets: int, n_blocks: int, sequences: int) -> float:
        """About what that takes, each over so many sequences."""
        ...


@dataclass
class TrailOf:
    """What one way of choosing came to; `forwards` are those it spent itself."""

    name: str
    steps: list[Step] = field(default_factory=list)
    forwards: float = 0.0
    started: float = 0.0  # block forwards of the ways before


class Trials:
    """Losses of sets by an evaluator: the objective per token, of several texts their weighted mean."""

    def __init__(self, question: Question, evaluator: Evaluator, more: Evaluator | None = None):
        self.question, self.evaluator, self.more = question, evaluator, more
        self.most_forwards: int | None = None  # block forwards that may be spent, where that was said
        self.after_repair: AfterRepair | None = None  # where the last sets are to be compared after a repair
        self.trails: list[TrailOf] = []
        self.spared = 0  # candidates that were not evaluated, or not to the end
        self.estimates: dict[Unit, float] = {}  # first-order, nats per token
        self.notes: list[str] = []
        self._known: dict[Mask, torch.Tensor] = {}  # nats of each sequence
        self._shares_S: torch.Tensor | None = None

    def losses(self, masks: Sequence[Mask], keep: Sequence[Mask] = ()) -> list[float]:
        """The objective of each set (nats per token) over all sequences; what is known is not computed again.

        The states along the sets `keep` are kept for the next call. Raises ScoreError if a loss is no number.
        """
        self.ask(masks, keep)
        return [self.loss(mask) for mask in masks]

    def ask(self, masks: Sequence[Mask], keep: Sequence[Mask] = ()) -> None:
        """Evaluate those that are not known yet."""
        new = [mask for mask in dict.fromkeys(masks) if mask not in self._known]
        if new:
            self._learn(new, self.evaluator.losses(new, keep=keep))

    def race(self, masks: Sequence[Mask], keep: Sequence[Mask] = ()) -> Mask:
        """The set with the lowest loss, found part by part: those that are clearly worse are asked no further.

        As `score --select` does (candidates.py); the best one's loss is known on all sequences then.
        """
        running, seen = Candidates(1, self.evaluator.sequences, list(range(len(masks)))), dict[Mask, list]()
        for parts in rounds_of(len(self.evaluator.parts), rounds_for(self.evaluator)):
            going = [masks[c] for c in running.racing]
            losses = self.evaluator.losses(going, parts, per_token=True, keep=keep)
            assert losses.each_MST is not None
            for mask, nats_S in zip(going, losses.nats_MS, strict=True):
                seen.setdefault(mask, []).append((parts, nats_S))
            scale_S = self._weights_of(parts)
            running.seen(losses.each_MST * scale_S[:, None])
            running.eliminate()
            if not running.racing:
                break
        ended = running.settled or running.racing
        best = min(
            (masks[c] for c in ended), key=lambda mask: (sum(float(n.sum()) for _, n in seen[mask]), sorted(mask))
        )
        self._complete(best, seen[best])
        self.spared += len(masks) - sum(len(rows) == len(seen[best]) for rows in seen.values())
        return best

    def _complete(self, mask: Mask, rows: list) -> None:
        """What a race has not asked of its winner."""
        asked = [part for parts, _ in rows for part in parts]
        rest = [part for part in range(len(self.evaluator.parts)) if part not in asked]
        if rest:
            rows = [*rows, (rest, self.evaluator.losses([mask], rest).nats_MS[0])]
        self._known[mask] = torch.cat([nats_S for _, nats_S in rows])

    def losses_on(self, masks: Sequence[Mask], parts: Sequence[int]) -> list[float]:
        """On some parts of the sequences only; to be compared among themselves."""
        losses = self.evaluator.losses(list(masks), parts)
        weights_S = self._weights_of(parts)
        return (losses.nats_MS @ (weights_S / losses.tokens_S.sum())).tolist()

    def _weights_of(self, parts: Sequence[int]) -> torch.Tensor:
        """The weights of these parts' sequences, 1 where all texts weigh the same."""
        places = [s for part in parts for s in range(self.evaluator.sequences)[self.evaluator.parts[part]]]
        return self.shares_S[places] / self.shares_S.mean()

    def confirmed(self, masks: Sequence[Mask]) -> list[Mask]:
        """Some sets, the best first: on the text of the search and on more text together, if there is some."""
        if self.more is None or len(masks) < 2:
            return sorted(masks, key=lambda mask: (self.loss(mask), sorted(mask)))
        nats_M = self.more.losses(masks).nats_MS @ self.more.shares_S
        share = self.more.tokens / (self.more.tokens + self.evaluator.tokens)
        both = {mask: share * float(n) + (1 - share) * self.loss(mask) for mask, n in zip(masks, nats_M, strict=True)}
        return sorted(masks, key=lambda mask: (both[mask], sorted(mask)))

    @contextmanager
    def asking(self, question: Question) -> Generator[None, None, None]:
        """Inside, another question is searched."""
        own, self.question = self.question, question
        try:
            yield
        finally:
            self.question = own

    def loss(self, mask: Mask) -> float:
        """Of a set that was asked for, or of the whole model."""
        return float(self.nats_of(mask) @ self.shares_S)

    def knows(self, mask: Mask) -> bool:
        """Whether it was asked for, on all sequences."""
        return mask in self._known

    def nats_of(self, mask: Mask) -> torch.Tensor:
        """Of each sequence, summed over its tokens."""
        return self._known[mask] if mask else self.evaluator.base_S

    @property
    def known(self) -> list[Mask]:
        """All sets whose loss over all sequences is known, in the order that they were asked for."""
        return list(self._known)

    @property
    def shares_S(self) -> torch.Tensor:
        """The factor of every sequence's summed nats in the objective."""
        if self._shares_S is None:
            self._shares_S = self.evaluator.shares_S
        return self._shares_S

    def stderr(self, mask: Mask, other: Mask | None = None) -> float:
        """Standard error of the difference of two sets' losses, on the same sequences; `other` is the whole model."""
        return paired_stderr(self.nats_of(mask) - self.nats_of(other or frozenset()), self.shares_S)

    @contextmanager
    def trail(self, name: str) -> Generator[TrailOf, None, None]:
        """What is found inside is found by this way."""
        trail, before = TrailOf(name, started=self.evaluator.forwards), self.evaluator.forwards
        self.trails.append(trail)
        yield trail
        trail.forwards += self.evaluator.forwards - before

    def found(self, mask: Mask) -> None:
        """A set is the best one of the present trail so far."""
        trail = self.trails[-1]
        if not trail.steps or trail.steps[-1].mask != mask:
            trail.steps.append(Step(mask, self.evaluator.forwards - trail.started))

    def _learn(self, masks: Sequence[Mask], losses: Losses) -> None:
        for mask, nats_S in zip(masks, losses.nats_MS, strict=True):
            if not bool(torch.isfinite(nats_S).all()):
                left_out = ", ".join(map(str, sorted(mask)))
                raise ScoreError(f"without {left_out} the loss is no number; compute in --dtype float32")
            self._known[mask] = nats_S


def paired_stderr(difference_S: torch.Tensor, shares_S: torch.Tensor) -> float:
    """Standard error (nats per token) of a mean of differences of sums over tokens; infinite for one sequence."""
    if len(difference_S) < 2:
        return float("inf")
    weights_S = shares_S / shares_S.sum()
    return float(mean_stderr((difference_S * shares_S.sum())[None], weights_S)[0])
