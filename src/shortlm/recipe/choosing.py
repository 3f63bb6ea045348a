"""The settings of `choose`: those of a preset, with what was given laid over them."""

from __future__ import annotations

from typing import Any

from shortlm.errors import RecipeError
from shortlm.recipe.base import Settings, read_yaml, validated
from shortlm.recipe.presets import preset_path
from shortlm.recipe.search_settings import SearchSettings
from shortlm.recipe.stages import ChooseSettings, ModelSettings, TextSettings

KINDS: dict[str, type[Settings]] = {
    "choose": ChooseSettings, "search": SearchSettings, "model": ModelSettings, "text": TextSettings,
}  # fmt: skip


def choosing_of(preset: str | None, **given: dict[str, Any]) -> list[Any]:
    """Settings of each part in `given`, in its order. Raises RecipeError for an unknown preset or a wrong value."""
    values = read_yaml(preset_path("choose", preset)) if preset else {}
    unknown = values.keys() - KINDS.keys() - {"source"}
    if unknown:
        raise RecipeError(f"preset '{preset}': unknown part '{min(unknown)}'; known: {', '.join(KINDS)}")
    return [validated(KINDS[part], values.get(part, {}) | laid_over) for part, laid_over in given.items()]
