"""The lowest scores go."""

from __future__ import annotations

from collections.abc import Sequence

from shortlm.artifacts import CriterionScores, Race
from shortlm.choose.budget import blocks_to_remove
from shortlm.choose.question import Choice, Question
from shortlm.errors import PlanError
from shortlm.units import BLOCK, Mask, Unit


def one_shot(question: Question, name: str, criterion: CriterionScores) -> Choice:
    """The units with the lowest scores. Raises PlanError if a race was for another choice, or others were scored."""
    if question.finer or (question.scores and question.scores.units):
        return _of_units(question, name)
    order = [i for i in criterion.order() if i not in question.protected]
    count = blocks_to_remove(question.budget, order, question.model)
    removed = sorted(order[:count])
    if criterion.race:
        removed = _raced(criterion.race, question.protected, count)
    agreement = _agreement(criterion, removed, question.protected)
    return Choice([Unit(i) for i in removed], name, criterion.scores, agreement)


def _of_units(question: Question, name: str) -> Choice:
    order = question.orders().get(name)
    if order is None:
        wanted = ",".join(dict.fromkeys(unit.part for unit in question.free)).replace(BLOCK, "blocks")
        raise PlanError(f"the scores are not of all of the units that may go; score with --units {wanted}")
    return Choice(sorted(first_of(question, order)), name)


def first_of(question: Question, order: Sequence[Unit]) -> Mask:
    """The first units of an order that meet the budget; one that would be too much is passed over.

    Raises PlanError if all of them don't.
    """
    return growing(question, order)[-1]


def growing(question: Question, order: Sequence[Unit]) -> list[Mask]:
    """The sets on the way there, one unit more in each; the last one meets the budget. Raises PlanError as above."""
    sets: list[Mask] = [frozenset()]
    for unit in order:
        if unit in question.candidates(sets[-1]):
            sets.append(question.grown(sets[-1], unit))
        if question.met(sets[-1]):
            return sets[1:]
    raise PlanError(f"budget '{question.budget.label}' can't be met in this order of the units; take --method greedy")


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
