"""Presets: published settings as YAML files of the same form as recipes, one folder per stage that has some."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from shortlm.errors import RecipeError, did_you_mean
from shortlm.recipe.base import read_yaml

FOLDER = Path(__file__).parent / "presets"
Stage = Literal["heal", "eval", "bench", "choose", "width"]


def preset_names(stage: Stage) -> list[str]:
    """The presets there are."""
    return sorted(path.stem for path in (FOLDER / stage).glob("*.yaml"))


def preset_path(stage: Stage, name: str) -> Path:
    """The file of a preset. Raises RecipeError naming the nearest one."""
    if name not in preset_names(stage):
        raise RecipeError(f"preset '{name}' is unknown; {did_you_mean(name, preset_names(stage))}")
    return FOLDER / stage / f"{name}.yaml"


def with_preset(stage: Stage, value: Any) -> Any:
    """Settings with `preset: name` replaced by that file's; what stands beside it counts."""
    if not isinstance(value, dict) or value.get("preset") is None:
        return value
    return read_yaml(preset_path(stage, value["preset"])) | {k: v for k, v in value.items() if k != "preset"}
