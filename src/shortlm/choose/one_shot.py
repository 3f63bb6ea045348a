"""The lowest scores go."""

from __future__ import annotations

from shortlm.artifacts import CriterionScores, Race
from shortlm.choose.budget import blocks_to_remove
from shortlm.choose.question import Choice, Question
from shortlm.errors import PlanError
from shortlm.units import Unit


def one_shot(question: Question, name: str, criterion: CriterionScores) -> Choice:
    """The blocks with the lowest scores. Raises PlanError if a race was for another choice."""
    order = [i for i in criterion.order() if i not in question.protected]
    count = blocks_to_remove(question.budget, order, question.model)
    removed = sorted(order[:count])
    if criterion.race:
        removed = _raced(criterion.race, question.protected, count)
    agreement = _agreement(criterion, removed, question.protected)
    return Choice([Unit(i) for i in removed], name, criterion.scores, agreement)


def _raced(race: Race, protected: list[int], count: int) -> list[int]:
    """A race answers one question only: which `count` blocks go, these being protected."""
    if (race.protected, len(race.selected)) != (protected, count):
        raise PlanError(
            f"the race was for {len(race.selected)} blocks with {race.protected or 'none'} protected, not for {count} "
            f"with {protected or 'none'}; give the same, or score again with --select {count} or without --select"
        )
    return race.selected


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
