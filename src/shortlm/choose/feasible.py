"""What can be told of a choice before anything is scored: from the settings and the model's config alone."""

from __future__ import annotations

import re
from collections.abc import Callable

from shortlm.artifacts import ModelFacts
from shortlm.choose.budget import Cost, given_budget
from shortlm.choose.methods import asks
from shortlm.choose.question import Question
from shortlm.choose.searching import question_before
from shortlm.errors import PlanError, RecipeError, did_you_mean
from shortlm.recipe import ChooseSettings, ScoreSettings
from shortlm.units import protected_blocks


def refuse_infeasible(
    settings: ChooseSettings, scored: ScoreSettings, model: ModelFacts, cache: Callable[[], Cost], rounds: int = 1
) -> None:
    """Raise PlanError for an unknown method, a criterion that isn't scored, blocks that aren't there, a budget that no
    order of the blocks can meet, and a race for another choice; RecipeError for rounds that can't be.
    """
    asking, name = asks(settings.method), settings.criterion or scored.criteria[0]
    if name not in scored.criteria and (settings.criterion or not asking):
        raise PlanError(f"criterion '{name}' is not scored; {did_you_mean(name, scored.criteria)}")
    if rounds > 1 and re.search(r"\d", settings.protect):
        raise RecipeError(
            f"--protect {settings.protect}: indices change from round to round; give +, ends, last or none"
        )
    question = question_before(settings, model, cache)
    whole = not question.finer and given_budget(settings)[0] not in ("speed_up", "drop_kv")
    if rounds > 1 and not whole:
        raise RecipeError(f"--rounds {rounds}: takes whole blocks in every round; give --drop, and no --units")
    counts = question.counts() if whole else {model.n_blocks}
    if rounds > max(counts):
        raise RecipeError(f"--rounds {rounds}: only {max(counts)} blocks go; give at most so many rounds")
    if scored.select:
        _refuse_another_race(settings, scored, question, counts)


def _refuse_another_race(settings: ChooseSettings, scored: ScoreSettings, question: Question, counts: set[int]) -> None:
    wanted, rule = scored.race()
    if settings.method != "one-shot":
        raise PlanError(f"--method {settings.method}: a race settles one-shot choices only; leave out --select")
    if protected_blocks(rule, question.model.n_blocks) != question.protected or wanted not in counts:
        raise PlanError(
            f"--select {scored.select}: a race for {wanted} (protected: {rule}), and the choice is of "
            f"{' or '.join(map(str, sorted(counts)))} (protected: {settings.protect}); give the same, or no --select"
        )
