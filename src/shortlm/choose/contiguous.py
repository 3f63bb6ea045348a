"""The best run of neighbouring blocks (Gromov et al., 2403.17887): by a table of runs, or the mean of their scores."""

from __future__ import annotations

from itertools import takewhile

from shortlm.artifacts import CriterionScores, ModelFacts
from shortlm.choose.budget import Budget, blocks_to_remove, removed_costs
from shortlm.choose.question import Choice, Question
from shortlm.errors import PlanError
from shortlm.units import Unit


def contiguous(question: Question, name: str, criterion: CriterionScores) -> Choice:
    """The run with the lowest score: that of the criterion's table of runs, or the mean of its blocks.

    Raises PlanError if no run meets the budget.
    """
    if question.finer or (question.scores and question.scores.units):
        raise PlanError("--method contiguous: is for scores of whole blocks; with other --units take greedy or auto")
    if criterion.race:
        raise PlanError("--method contiguous: a race settles one-shot choices only; score without --select")
    model, budget = question.model, question.budget
    taken = {*question.protected, *range(criterion.first_start)}
    blocks_to_remove(budget, _longest_run(model.n_blocks, taken), model)  # refuses a budget that no run can meet
    runs = _runs_within(budget, model, taken)
    best = min(runs, key=lambda run: (_run_score(criterion, run[0], len(run)), run[0]))
    return Choice([Unit(i) for i in best], name, criterion.scores)


def _runs_within(budget: Budget, model: ModelFacts, taken: set[int]) -> list[list[int]]:
    """From each start the run that meets the budget; where a share is wanted, only runs as close to it as the closest.

    Blocks may be of different sizes, so runs that meet a budget of parameters may be of different lengths.
    """
    found = []
    for start in range(model.n_blocks):
        rest = takewhile(lambda i: i not in taken, range(start, model.n_blocks))
        removed = removed_costs(budget, run := list(rest), model)
        if 0 < (count := budget.pick(removed)) < len(removed):
            found.append((abs(removed[count] - budget.goal) if budget.rule == "nearest" else 0.0, run[:count]))
    closest = min(miss for miss, _ in found)
    slack = min(budget.cost(Unit(i)) for i in range(model.n_blocks)) / 2
    return [run for miss, run in found if miss <= closest + slack]


def _longest_run(n_blocks: int, taken: set[int]) -> list[int]:
    """The longest stretch of neighbours that may go: no run can be longer."""
    stretches, start = [range(0)], 0
    for i in sorted({*taken, n_blocks}):
        stretches.append(range(start, i))
        start = i + 1
    return list(max(stretches, key=len))


def _run_score(criterion: CriterionScores, start: int, length: int) -> float:
    if criterion.table is not None:
        return criterion.table[length - 1][start]
    return sum(criterion.scores[start : start + length]) / length
