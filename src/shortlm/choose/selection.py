"""Which blocks go: the lowest scores (one-shot), or the best run of neighbours (contiguous)."""

from __future__ import annotations

from itertools import takewhile

from shortlm.artifacts import BlockScores, CriterionScores, CutPlan, ModelFacts, Race
from shortlm.choose.budget import Budget, blocks_to_remove, read_budget, removed_parameters
from shortlm.errors import PlanError, did_you_mean, shown
from shortlm.plans import plan_of
from shortlm.recipe import ChooseSettings
from shortlm.units import Unit, protected_blocks


def choose(scores: BlockScores, settings: ChooseSettings, source: str = "") -> CutPlan:
    """A CutPlan within the budget. Raises PlanError if the criterion wasn't scored or the budget can't be met."""
    name = settings.criterion or next(iter(scores.criteria))
    if name not in scores.criteria:
        raise PlanError(f"criterion {shown(name)} was not scored; {did_you_mean(name, scores.criteria)}")
    criterion, model = scores.criteria[name], scores.model
    protected = protected_blocks(settings.protect, model.n_blocks)
    budget = read_budget(settings, model)
    if criterion.race and settings.method != "one-shot":
        raise PlanError(f"--method {settings.method}: a race settles one-shot choices only; score without --select")
    select = _contiguous if settings.method == "contiguous" else _one_shot
    removed = select(criterion, model, protected, budget)
    return plan_of(model, [Unit(i) for i in removed], settings.method, name, budget.label, protected).model_copy(
        update={
            "scores": criterion.scores,
            "source": source,
            "agreement": _agreement(criterion, removed, protected) if settings.method == "one-shot" else None,
        }
    )


def _one_shot(criterion: CriterionScores, model: ModelFacts, protected: list[int], budget: Budget) -> list[int]:
    staying = set(protected)
    order = [i for i in criterion.order() if i not in staying]
    if criterion.race:
        return _raced(criterion.race, protected, blocks_to_remove(budget, order, model))
    return sorted(order[: blocks_to_remove(budget, order, model)])


def _raced(race: Race, protected: list[int], count: int) -> list[int]:
    """A race answers one question only: which `count` blocks go, these being protected."""
    if (race.protected, len(race.selected)) != (protected, count):
        raise PlanError(
            f"the race was for {len(race.selected)} blocks with {race.protected or 'none'} protected, not for {count} "
            f"with {protected or 'none'}; give the same, or score again with --select {count} or without --select"
        )
    return race.selected


def _contiguous(criterion: CriterionScores, model: ModelFacts, protected: list[int], budget: Budget) -> list[int]:
    """The run with the lowest score: that of the criterion's table of runs, or the mean of its blocks."""
    taken = {*protected, *range(criterion.first_start)}
    blocks_to_remove(budget, _longest_run(model.n_blocks, taken), model)  # refuses a budget that no run can meet
    runs = _runs_within(budget, model, taken)
    return min(runs, key=lambda run: (_run_score(criterion, run[0], len(run)), run[0]))


def _runs_within(budget: Budget, model: ModelFacts, taken: set[int]) -> list[list[int]]:
    """From each start the run that meets the budget; where a share is wanted, only runs as close to it as the closest.

    Blocks may be of different sizes, so runs that meet a budget of parameters may be of different lengths.
    """
    found = []
    for start in range(model.n_blocks):
        rest = takewhile(lambda i: i not in taken, range(start, model.n_blocks))
        removed = removed_parameters(run := list(rest), model)
        if 0 < (count := budget.pick(removed)) < len(removed):
            found.append((abs(removed[count] - (budget.wanted or removed[count])), run[:count]))
    closest = min(miss for miss, _ in found)
    slack = min(model.block_parameters) / 2
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


def _agreement(criterion: CriterionScores, removed: list[int], protected: list[int]) -> float | None:
    """Share of 1000 bootstrap resamples of the sequences in which the same blocks are the lowest."""
    if criterion.per_sequence is None or criterion.weights is None or len(criterion.weights) < 2:
        return None
    import torch

    from shortlm.statistics import resampled

    values_LS = torch.tensor(criterion.per_sequence, dtype=torch.float64)
    means_RL = resampled(values_LS, torch.tensor(criterion.weights, dtype=torch.float64), 1000, seed=0)
    means_RL[:, protected] = torch.inf
    chosen = means_RL.argsort(dim=1, stable=True)[:, : len(removed)].sort(dim=1).values
    return float((chosen == torch.tensor(removed)).all(1).double().mean())
