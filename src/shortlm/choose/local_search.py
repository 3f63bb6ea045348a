"""Local search: one dropped unit is swapped for a kept one as long as that helps, from any start.

The start is the choice of a criterion by scores that were given, that of perplexity, or greedy's. All swaps of the
present set are asked for in one call that starts from its own states; sets that were tried before cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from shortlm.choose.greedy import GREEDY, WHOLE, greedy
from shortlm.choose.method import Call, Given, Method
from shortlm.choose.one_shot import first_of
from shortlm.choose.question import Question
from shortlm.choose.trials import Trials
from shortlm.errors import PlanError
from shortlm.recipe.specs import Options
from shortlm.units import Mask, Unit

EXPECTED = 3  # rounds of swaps, before none helps any more


def local_search(trials: Trials, given: Given) -> Mask:
    """A set that no swap makes better."""
    removed = start_of(trials, given["start"])
    trials.losses([removed])
    trials.found(removed)
    for _ in range(given["rounds"]):
        better = best_swap(trials, removed)
        if better is None:
            break
        removed = better
        trials.found(removed)
    return removed


def best_swap(trials: Trials, removed: Mask) -> Mask | None:
    """The best set that is one swap away; None if none is better."""
    sets = swaps(trials.question, removed)
    trials.ask(sets, keep=[removed])
    best = min(sets, key=lambda mask: (trials.loss(mask), sorted(mask)), default=removed)
    return best if trials.loss(best) < trials.loss(removed) else None


def swaps(question: Question, removed: Mask) -> list[Mask]:
    """All sets that meet the budget with one unit back and another gone, or just one back."""
    found: list[Mask] = []
    for back in question.leaving(removed):
        smaller = question.shrunk(removed, back)
        grown = [question.grown(smaller, unit) for unit in question.candidates(smaller) if unit != back]
        found += [mask for mask in (smaller, *grown) if mask != removed and question.met(mask)]
    return list(dict.fromkeys(found))


def start_of(trials: Trials, start: str) -> Mask:
    """Where to begin. Raises PlanError if scores are to say it and none were given."""
    question = trials.question
    if start == "greedy":
        return greedy(trials, GREEDY.options.defaults)
    if start == "ppl":
        masks = {unit: question.grown(WHOLE, unit) for unit in question.free}
        losses = dict(zip(masks, trials.losses(list(masks.values()), keep=[WHOLE]), strict=True))
        return first_of(question, sorted(losses, key=lambda unit: (losses[unit], unit)))
    if question.scores is None:
        raise PlanError("local-search:start=scores: begins with the choice by scores; give the file that 'score' wrote")
    criterion = next(iter(question.scores.criteria.values()))
    rows, order = question.scores.rows, criterion.order()
    return first_of(question, [rows[k] for k in order])


def _calls(question: Question, given: Given) -> Iterator[Call]:
    yield Call([question.grown(WHOLE, unit) for unit in question.free], [WHOLE])
    middle: list[Unit] = sorted(question.free, key=lambda unit: abs(2 * unit.block - question.model.n_blocks))
    removed = first_of(question, middle)
    yield Call(swaps(question, removed), [removed], min(EXPECTED, given["rounds"]))


LOCAL_SEARCH = Method(
    local_search, "swaps of a dropped for a kept unit until none helps",
    Options(
        {"start": "greedy", "rounds": 20}, choices={"start": ("greedy", "ppl", "scores")}, limits={"rounds": (1, 1000)}
    ),
    _calls, kept=lambda given: 1,
)  # fmt: skip
