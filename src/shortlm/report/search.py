"""What a search came to, in figures: how far the loss of each set is above the whole model's, and which set was chosen.

Losses are nats per token. Standard errors belong to the difference to the whole model, so a rise is what is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from shortlm.artifacts import CutPlan, Found, ModelFacts, Search
from shortlm.errors import PlanError
from shortlm.report.evidence import Evidence
from shortlm.report.units import is_fine, sublayers
from shortlm.statistics import independent_stderr
from shortlm.units import Unit

CROSS_ENTROPY = "cross-entropy"
SAME_SIZE = 0.97  # of two sets that leave out about as many parameters


class Rise(NamedTuple):
    """A loss above the whole model's on the same text."""

    nats: float
    stderr: float | None


@dataclass(frozen=True)
class Step:
    """A set that was found, with its figures."""

    found: Found
    share: float | None  # of the model's parameters; unknown where sublayers can't be told apart
    seen: Rise  # on the text of the search
    held_out: Rise | None

    @property
    def rise(self) -> Rise:
        """On held-out text, else on that of the search."""
        return self.held_out or self.seen


@dataclass(frozen=True)
class Way:
    """One way of choosing and the sets it found."""

    name: str
    steps: list[Step]
    block_forwards: int
    chose: bool  # its last set is the plan

    @property
    def last(self) -> Step:
        """What it came to."""
        return self.steps[-1]

    @property
    def fine(self) -> bool:
        """Whether it leaves out attention or FFN alone."""
        return any(is_fine(step.found.units) for step in self.steps)

    @property
    def unheld(self) -> bool:
        """Whether the loss of none of its sets on held-out text is known."""
        return not any(step.held_out for step in self.steps)

    def by_size(self) -> list[Step]:
        """The best set of each size where sets grow; else, of sets that all meet one budget, the best one."""
        sized = [s for s in self.steps if s.share is not None and (s.held_out or self.unheld)]
        if any((b.share or 0) < (a.share or 0) for a, b in pairwise(sized)):
            return [min(sized, key=lambda step: step.seen.nats)]
        best: dict[float | None, Step] = {}
        for step in sized:
            if step.share not in best or step.seen.nats < best[step.share].seen.nats:
                best[step.share] = step
        return list(best.values())

    def final_size(self) -> list[Step]:
        """The sets about as large as the last one; only these can be compared with one another."""
        least = SAME_SIZE * (self.last.share or 0)
        return [step for step in self.steps if (step.share or 0) >= least]


class Gain(NamedTuple):
    """What a set of finer units gains over one of whole blocks; negative if it loses. One of the two is the plan."""

    way: str  # that found the other one
    other: Step
    rise: Rise  # of the loss of the whole blocks above that of the finer set
    held_out: bool
    planned: bool  # the plan is the finer one


def search_of(evidence: Evidence) -> Search | None:
    """That of the plan, if it tells of ways and their sets."""
    search = evidence.plan.search if evidence.plan else None
    return search if search and any(trail.found for trail in search.trails) else None


def ways(plan: CutPlan) -> list[Way]:
    """Every way that found something, in the order in which they were tried."""
    search = plan.search
    trails = [trail for trail in search.trails if trail.found] if search else []
    return [
        Way(t.name, [_step(plan.model, search, f) for f in t.found], t.block_forwards,
            t is trails[-1] and sublayers(t.found[-1].units) == sublayers(plan.units))
        for t in trails if search
    ]  # fmt: skip


def _step(model: ModelFacts, search: Search, found: Found) -> Step:
    removed, base = removed_parameters(model, found.units), search.held_out_base_nats
    held_out = None
    if found.held_out_nats is not None and base is not None:
        held_out = Rise(found.held_out_nats - base, found.held_out_stderr)
    return Step(
        found,
        None if removed is None else min(1.0, removed / model.parameters),
        Rise(found.nats - base_objective(search), found.stderr),
        held_out,
    )


def base_objective(search: Search) -> float:
    """The objective of the whole model; it has no divergence from itself."""
    return search.base_nats if search.objective == CROSS_ENTROPY else 0.0


def removed_parameters(model: ModelFacts, units: Iterable[Unit]) -> int | None:
    """Of these units; None where the model's sublayers can't be told apart."""
    try:
        return sum(model.parameters_of(unit) for unit in units)
    except PlanError:
        return None


def chosen_step(found: list[Way]) -> Step | None:
    """The set of the plan."""
    return found[-1].last if found and found[-1].chose else None


def finer_gain(found: list[Way]) -> Gain | None:
    """Between the plan and the best set of the other kind, which is chosen by the text of the search.

    The finer set never keeps more parameters: beside a plan of whole blocks, it is one that leaves out as much or more;
    beside a finer plan, the others are the largest ones that leave out as much or less.
    """
    chosen = chosen_step(found)
    if chosen is None or chosen.share is None:
        return None
    planned = is_fine(chosen.found.units)
    others = [(s.share, way, s) for way in found if way.fine != planned for s in way.steps if s.share is not None]
    if planned:
        most = max((share for share, _, _ in others if share <= chosen.share), default=None)
        fitting = [(way, step) for share, way, step in others if share == most]
    else:
        fitting = [(way, step) for share, way, step in others if share >= chosen.share]
    if not fitting:
        return None
    way, step = min(fitting, key=lambda pair: pair[1].seen.nats)
    whole, fine = (step, chosen) if planned else (chosen, step)
    return Gain(way.name, step, *_difference(whole, fine), planned)


def _difference(whole: Step, fine: Step) -> tuple[Rise, bool]:
    """On held-out text if both are known there.

    Both losses are on the same text, but only their errors to the whole model are known, so the error of their
    difference is that of independent ones, which is rather too large.
    """
    held_out = whole.held_out is not None and fine.held_out is not None
    a, b = (whole.rise, fine.rise) if held_out else (whole.seen, fine.seen)
    return Rise(a.nats - b.nats, independent_stderr([a.stderr, b.stderr])), held_out
