"""Optimizer steps of a phase by its budget, and how many of them warm up."""

from __future__ import annotations

import math

from shortlm.errors import RecipeError
from shortlm.recipe import PhaseSettings
from shortlm.recipe.heal_settings import MOST_STEPS
from shortlm.sizes import quantity


def step_count(settings: PhaseSettings, tokens_per_row: float, records: int | None) -> int:
    """Optimizer steps; one pass over the records if no budget is given. Raises RecipeError."""
    if settings.steps:
        return settings.steps
    if settings.tokens:
        steps = math.ceil(quantity(settings.tokens) / (settings.batch * tokens_per_row))
        return _bounded(steps, f"--tokens {settings.tokens}")
    if records is None:
        raise RecipeError("plain text has no end here; give a budget: --tokens 2M or --steps 500")
    epochs = settings.epochs or 1.0
    return max(1, _bounded(round(epochs * records / settings.batch), f"--epochs {epochs:g}"))


def _bounded(steps: int, option: str) -> int:
    if steps > MOST_STEPS:
        raise RecipeError(f"{option}: would be {steps:,} steps, at most {MOST_STEPS:,} are taken; give a smaller one")
    return steps


def warmup_steps(settings: PhaseSettings, steps: int) -> int:
    """Steps of linear warm-up, which begins at a rate of 0. Raises RecipeError if there is no other step."""
    if settings.warmup < 1:
        return min(math.ceil(settings.warmup * steps), steps - 1)
    if steps == 1:
        raise RecipeError(
            f"--warmup {settings.warmup:g}: the only step would have a learning rate of 0; "
            "give more --steps (or tokens, or epochs), or --warmup 0"
        )
    return int(settings.warmup)
