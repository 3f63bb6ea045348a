"""The best run of neighbouring blocks by its true loss: all runs that meet the budget in one call."""

from __future__ import annotations

from shortlm.choose.method import Call, Given, Method
from shortlm.choose.question import Question
from shortlm.choose.trials import Trials
from shortlm.errors import PlanError
from shortlm.recipe.specs import Options
from shortlm.units import Mask, Unit


def best_run(trials: Trials, given: Given) -> Mask:
    """The run with the lowest loss; of equal ones the first. Raises PlanError if none meets the budget."""
    runs = runs_of(trials.question)
    if not runs:
        raise PlanError(
            f"budget '{trials.question.budget.label}': no run of neighbouring blocks meets it; protect fewer blocks "
            "(--protect ends), or take another --method"
        )
    losses = trials.losses(runs)
    best = runs[losses.index(min(losses))]
    trials.found(best)
    return best


def runs_of(question: Question) -> list[Mask]:
    """From every start the shortest run of free blocks that meets the budget."""
    free, found = {unit.block for unit in question.free}, []
    for start in sorted(free):
        run: Mask = frozenset()
        for i in range(start, question.model.n_blocks):
            if i not in free or question.met(run):
                break
            run = question.grown(run, Unit(i))
        if question.met(run) and len(run) < question.model.n_blocks:
            found.append(run)
    return found


RUNS = Method(
    best_run, "the run of neighbouring blocks with the lowest loss", Options(),
    lambda question, given: iter([Call(runs_of(question))]), blocks_only=True,
)  # fmt: skip
