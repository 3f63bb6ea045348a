"""What can be told of a choice before anything is scored: from the settings and the model's config alone."""

from __future__ import annotations

import re
from contextlib import suppress

from shortlm.artifacts import ModelFacts
from shortlm.choose.budget import blocks_to_remove, read_budget
from shortlm.errors import PlanError, RecipeError, did_you_mean
from shortlm.recipe import ChooseSettings, ScoreSettings
from shortlm.units import protected_blocks


def refuse_infeasible(settings: ChooseSettings, scored: ScoreSettings, model: ModelFacts, rounds: int = 1) -> None:
    """Raise PlanError for a criterion that isn't scored, blocks that aren't there, a budget that no order of the blocks
    can meet, and a race for another choice; RecipeError for rounds that can't be.
    """
    name = settings.criterion or scored.criteria[0]
    if name not in scored.criteria:
        raise PlanError(f"criterion '{name}' is not scored; {did_you_mean(name, scored.criteria)}")
    if rounds > 1 and re.search(r"\d", settings.protect):
        raise RecipeError(
            f"--protect {settings.protect}: indices change from round to round; give +, ends, last or none"
        )
    protected = protected_blocks(settings.protect, model.n_blocks)
    counts = _counts(settings, model, [i for i in range(model.n_blocks) if i not in protected])
    if rounds > max(counts):
        raise RecipeError(f"--rounds {rounds}: only {max(counts)} blocks go; give at most so many rounds")
    if scored.select:
        _refuse_another_race(settings, scored, model, protected, counts)


def _counts(settings: ChooseSettings, model: ModelFacts, free: list[int]) -> set[int]:
    """How many blocks may go: blocks may be of several sizes, so both the smallest and the largest first."""
    budget, found = read_budget(settings, model), set()
    by_size = sorted(free, key=lambda i: model.block_parameters[i])
    for order in (by_size, by_size[::-1]):
        with suppress(PlanError):
            found.add(blocks_to_remove(budget, order, model))
    return found or {blocks_to_remove(budget, by_size, model)}


def _refuse_another_race(
    settings: ChooseSettings, scored: ScoreSettings, model: ModelFacts, protected: list[int], counts: set[int]
) -> None:
    wanted, rule = scored.race()
    if settings.method != "one-shot":
        raise PlanError(f"--method {settings.method}: a race settles one-shot choices only; leave out --select")
    if protected_blocks(rule, model.n_blocks) != protected or wanted not in counts:
        raise PlanError(
            f"--select {scored.select}: a race for {wanted} (protected: {rule}), and the choice is of "
            f"{' or '.join(map(str, sorted(counts)))} (protected: {settings.protect}); give the same, or no --select"
        )
