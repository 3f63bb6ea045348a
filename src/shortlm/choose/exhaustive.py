"""All sets that meet the budget, where there are few enough: the optimum on this text."""

from __future__ import annotations

from collections.abc import Iterator

from shortlm.choose.method import Call, Given, Method
from shortlm.choose.question import Question
from shortlm.choose.trials import Trials
from shortlm.errors import PlanError
from shortlm.recipe.specs import Options
from shortlm.units import Mask, Unit

VISITED = 20  # partial sets that are looked at for each set that may be evaluated


def exhaustive(trials: Trials, given: Given) -> Mask:
    """The set with the lowest loss. Raises PlanError if there are more than `most` sets."""
    sets = sets_of(trials.question, given["most"])
    losses = trials.losses(sets)
    best = sets[losses.index(min(losses))]
    trials.found(best)
    return best


def sets_of(question: Question, most: int) -> list[Mask]:
    """All sets that meet the budget and would not without one of their units. Raises PlanError for more than `most`."""
    found: dict[Mask, None] = {}
    for visited, removed in enumerate(_partial(question, frozenset(), question.free)):
        if len(found) > most or visited > VISITED * most:
            raise PlanError(
                f"--method exhaustive: more than {most:,} sets meet the budget '{question.budget.label}'; take greedy, "
                f"beam or auto, or allow more (exhaustive:most={10 * most})"
            )
        if question.met(removed) and not any(question.met(question.shrunk(removed, u)) for u in removed):
            found[removed] = None
    return list(found)


def _partial(question: Question, removed: Mask, units: list[Unit]) -> Iterator[Mask]:
    """`removed`, and all that it can grow to by some of these units, as far as these can still meet the budget."""
    yield removed
    allowed, rest = set(question.candidates(removed)), question.cost(removed) + question.budget.of(units)
    for k, unit in enumerate(units):
        if unit in allowed and question.budget.within_reach(rest):
            yield from _partial(question, question.grown(removed, unit), units[k + 1 :])
        rest -= question.budget.cost(unit)


EXHAUSTIVE = Method(
    exhaustive, "all sets that meet the budget, where there are few enough",
    Options({"most": 2000}, limits={"most": (1, 200_000)}),
    lambda question, given: iter([Call(sets_of(question, given["most"]))]),
)  # fmt: skip
