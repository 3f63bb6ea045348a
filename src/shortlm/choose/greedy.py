"""Greedy (SLEB, 2402.09025): round by round, the unit goes whose removal costs least, until the budget is met.

All candidates of a round start from the states along the set of the round before. Where units are of several sizes,
the increase of the loss per what the unit counts for in the budget decides.

`lazy`: what a removal costs grows as other units go, so its last known cost is a lower bound; a candidate that would
not even win with that is not evaluated again. `race`: within a round, candidates that are clearly worse leave after
some of the sequences. `filter`: the first round begins with those that the first-order estimate puts first.

Shapes: S sequences.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from shortlm.choose.first_order import estimated
from shortlm.choose.method import Call, Given, Method
from shortlm.choose.question import Question
from shortlm.choose.trials import Trials, paired_stderr
from shortlm.recipe.specs import Options
from shortlm.units import Mask, Unit

MARGIN = 0.5  # standard errors of the paired difference that a last known cost may be above the best one
FAR = 3.0  # an estimate so many times the best cost measured is far behind; estimates are off by up to that
PREDICTED = 2  # likely winners, the states along which are kept for the next round
WHOLE: Mask = frozenset()


def greedy(trials: Trials, options: Given) -> Mask:
    """The set after the last round."""
    removed, rounds = WHOLE, _Rounds(trials, options)
    while units := trials.question.candidates(removed):
        removed = rounds.next(removed, units)
        trials.found(removed)
    return _trimmed(trials, removed)


class _Rounds:
    """What is known of every unit from the rounds before."""

    def __init__(self, trials: Trials, options: Given):
        self.trials, self.question = trials, trials.question
        self.lazy, self.races = options["lazy"], options["race"]
        self.last: dict[Unit, torch.Tensor] = {}  # by how much each sequence's nats grew without it
        self.estimates = estimated(trials) if options["filter"] == "first-order" else {}
        trials.estimates = self.estimates or trials.estimates

    def next(self, removed: Mask, units: list[Unit]) -> Mask:
        """`removed` and the unit that costs least."""
        waiting, tried = self._in_order(removed, units), list[Unit]()
        while waiting:
            count = self._at_once(waiting)
            part, waiting = waiting[:count], waiting[count:]
            self._try(removed, part)
            tried += part
            best = min(tried, key=lambda unit: (self._rate(removed, unit), unit))
            likely = [unit for unit in waiting if not self._hopeless(removed, unit, best)]
            self.trials.spared += len(waiting) - len(likely)
            waiting = likely
        return self.question.grown(removed, best)

    def _in_order(self, removed: Mask, units: list[Unit]) -> list[Unit]:
        """Those that nothing is known of first, then the likeliest."""
        expected = {unit: self._expected(removed, unit) for unit in units}
        return sorted(units, key=lambda unit: (expected[unit], unit))

    def _at_once(self, waiting: list[Unit]) -> int:
        """How many are evaluated before what is left is looked at again; from disk each time reads all blocks."""
        if not (self.lazy or self.estimates):
            return len(waiting)
        unknown = sum(unit not in self.last and unit not in self.estimates for unit in waiting)
        share = 3 if self.trials.evaluator.caller.disk else 16
        return max(unknown, 1 + len(waiting) // share)

    def _try(self, removed: Mask, part: list[Unit]) -> None:
        question, trials = self.question, self.trials
        masks = [question.grown(removed, unit) for unit in part]
        likely = sorted(part, key=lambda unit: self._expected(removed, unit))[:PREDICTED]
        keep = [removed, *(question.grown(removed, unit) for unit in likely if unit in self.last)]
        if self.races and len({question.cost(mask) for mask in masks}) == 1 and len(masks) > 1:
            trials.race(masks, keep)
        else:
            trials.ask(masks, keep)
        before_S = trials.nats_of(removed)
        for unit, mask in zip(part, masks, strict=True):
            if trials.knows(mask):
                self.last[unit] = trials.nats_of(mask) - before_S

    def _rate(self, removed: Mask, unit: Unit) -> float:
        """How much the loss grows per what the unit counts for; infinite if it has left a race."""
        if not self.trials.knows(self.question.grown(removed, unit)):
            return float("inf")
        return self._expected(removed, unit)

    def _expected(self, removed: Mask, unit: Unit) -> float:
        size = self._size(removed, unit)
        if unit in self.last:
            return float(self.last[unit] @ self.trials.shares_S) / size
        return self.estimates[unit] / FAR / size if unit in self.estimates else float("-inf")

    def _hopeless(self, removed: Mask, unit: Unit, best: Unit) -> bool:
        """Whether even its last known cost, or its estimate, is too high to win."""
        gap = self._expected(removed, unit) - self._rate(removed, best)
        if unit not in self.last:
            return gap > 0 and unit in self.estimates
        ours_S, best_S = (self.last[u] / self._size(removed, u) for u in (unit, best))
        return self.lazy and gap > MARGIN * paired_stderr(ours_S - best_S, self.trials.shares_S)

    def _size(self, removed: Mask, unit: Unit) -> float:
        return self.question.cost(self.question.grown(removed, unit)) - self.question.cost(removed)


def _trimmed(trials: Trials, removed: Mask) -> Mask:
    """Where the last units were larger than needed, what may stay does, as long as the budget is met."""
    question = trials.question
    while units := [unit for unit in question.leaving(removed) if question.met(question.shrunk(removed, unit))]:
        masks = [question.shrunk(removed, unit) for unit in units]
        losses = trials.losses(masks, keep=[removed])
        best = min(range(len(masks)), key=lambda k: (losses[k], k))
        if losses[best] >= trials.loss(removed):
            break
        removed = masks[best]
        trials.found(removed)
    return removed


def _calls(question: Question, given: Given) -> Iterator[Call]:
    """All candidates of every round, if always the unit in the middle went."""
    removed = WHOLE
    while units := question.candidates(removed):
        yield Call([question.grown(removed, unit) for unit in units], [removed])
        removed = question.grown(removed, units[len(units) // 2])


GREEDY = Method(
    greedy, "round by round the unit that costs least (SLEB)",
    Options(
        {"lazy": True, "race": False, "filter": "none"}, {"sleb": {"lazy": False}},
        choices={"filter": ("none", "first-order")},
    ),
    _calls, by_parts=lambda given: given["race"], kept=lambda given: 1 + PREDICTED,
    gradients=lambda given: given["filter"] == "first-order",
)  # fmt: skip
