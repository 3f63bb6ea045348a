"""Settings of several kinds that one preset gives, with what was given laid over them: choose, prune-width."""

from __future__ import annotations

from typing import Any

from shortlm.errors import RecipeError
from shortlm.recipe.base import Settings, read_yaml, validated
from shortlm.recipe.presets import Stage, preset_path
from shortlm.recipe.search_settings import SearchSettings
from shortlm.recipe.stages import ChooseSettings, ModelSettings, TextSettings
from shortlm.recipe.width_settings import WidthSettings

KINDS: dict[str, type[Settings]] = {
    "choose": ChooseSettings, "search": SearchSettings, "width": WidthSettings, "model": ModelSettings,
    "text": TextSettings,
}  # fmt: skip


def choosing_of(preset: str | None, **given: dict[str, Any]) -> list[Any]:
    """Settings of each part in `given`, in its order. Raises RecipeError for an unknown preset or a wrong value."""
    return _of("choose", preset, given)


def narrowing_of(preset: str | None, **given: dict[str, Any]) -> list[Any]:
    """The same for `prune-width`; a budget that is given replaces the preset's."""
    return _of("width", preset, given, {"drop_params", "to_params", "ratio"})


def _of(
    stage: Stage, preset: str | None, given: dict[str, dict[str, Any]], budgets: set[str] | None = None
) -> list[Any]:
    values = read_yaml(preset_path(stage, preset)) if preset else {}
    unknown = values.keys() - KINDS.keys() - {"source"}
    if unknown:
        raise RecipeError(f"preset '{preset}': unknown part '{min(unknown)}'; known: {', '.join(KINDS)}")
    if budgets and budgets & given[stage].keys():
        values[stage] = {name: value for name, value in values.get(stage, {}).items() if name not in budgets}
    return [validated(KINDS[part], values.get(part, {}) | laid_over) for part, laid_over in given.items()]
