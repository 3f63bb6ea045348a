"""What would fail later is told first, before anything is scored: by settings, configs and inputs."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from shortlm.bench import check_bench
from shortlm.choose import asks, cache_cost, refuse_infeasible, refuse_unraceable
from shortlm.cut import refuse_uncuttable
from shortlm.evaluate import check_evaluation
from shortlm.model import facts_from_config
from shortlm.recipe import Recipe
from shortlm.repair import check_repair, read_method
from shortlm.score import parse


def check_settings(recipe: Recipe) -> None:
    """What settings and config alone decide. Raises ShortLMError for what can't be."""
    for spec in recipe.score.criteria:
        parse(spec)
    refuse_unraceable(recipe.score)
    if not asks(recipe.choose.method):
        _ = recipe.text.count  # a number, not auto
    recipe.eval_texts()
    if recipe.repair:
        read_method(recipe.repair.method)
        _ = recipe.repair_text
    cache = partial(cache_cost, recipe.model)
    refuse_infeasible(recipe.choose, recipe.score, facts_from_config(recipe.model), cache, recipe.rounds)


def check_inputs(recipe: Recipe, out: Path) -> None:
    """Architecture, texts, tasks and training data. Raises ShortLMError for what would fail after hours of scoring."""
    if not (out / "model").exists():
        refuse_uncuttable(recipe.model)
    check_evaluation([recipe.model], recipe.eval.model_copy(update={"texts": recipe.eval_texts()}))
    if recipe.repair:
        check_repair(recipe.model, recipe.repair_text, recipe.repair)
    if recipe.heal:
        from shortlm.heal import check_healing

        check_healing(recipe.model, recipe.heal)
    if recipe.bench and recipe.bench.limits:
        check_bench([recipe.model], recipe.bench)
