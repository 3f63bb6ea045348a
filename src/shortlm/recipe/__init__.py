"""Settings of every stage: pydantic models with the one description of every option. YAML in and out.

The CLI builds its options from these fields, so that an option is documented once, here.
"""

from shortlm.recipe.base import Plain, Settings, Size, not_default, read_yaml, settings_of, to_yaml, validated
from shortlm.recipe.bench_settings import BenchSettings, WorkloadSettings, bench_of, benching_of
from shortlm.recipe.choosing import choosing_of, narrowing_of
from shortlm.recipe.contest import Contest, Way, load_contest
from shortlm.recipe.demo_settings import DemoSettings
from shortlm.recipe.eval_settings import EvalSettings, evaluation_of, piqa_labels
from shortlm.recipe.export_settings import GgufSettings, QuantizeSettings
from shortlm.recipe.heal_settings import (
    HealSettings,
    PhaseSettings,
    SourceSettings,
    healing_of,
    laid_over,
    load_healing,
)  # fmt: skip
from shortlm.recipe.overlap import trained_on
from shortlm.recipe.presets import preset_names
from shortlm.recipe.recipe import Recipe, load_recipe
from shortlm.recipe.repair_settings import RepairSettings
from shortlm.recipe.search_settings import SearchSettings
from shortlm.recipe.shipped import Described, described, recipe_file, shipped
from shortlm.recipe.stages import (
    DEFAULT_CRITERIA,
    ChooseSettings,
    CutSettings,
    ModelSettings,
    ScoreSettings,
    TextSettings,
)  # fmt: skip
from shortlm.recipe.width_settings import WidthSettings

__all__ = [
    "DEFAULT_CRITERIA",
    "BenchSettings",
    "ChooseSettings",
    "Contest",
    "CutSettings",
    "DemoSettings",
    "Described",
    "EvalSettings",
    "GgufSettings",
    "HealSettings",
    "ModelSettings",
    "PhaseSettings",
    "Plain",
    "QuantizeSettings",
    "Recipe",
    "RepairSettings",
    "ScoreSettings",
    "SearchSettings",
    "Settings",
    "Size",
    "SourceSettings",
    "TextSettings",
    "Way",
    "WidthSettings",
    "WorkloadSettings",
    "bench_of",
    "benching_of",
    "choosing_of",
    "described",
    "evaluation_of",
    "healing_of",
    "laid_over",
    "load_contest",
    "load_healing",
    "load_recipe",
    "narrowing_of",
    "not_default",
    "piqa_labels",
    "preset_names",
    "read_yaml",
    "recipe_file",
    "settings_of",
    "shipped",
    "to_yaml",
    "trained_on",
    "validated",
]  # fmt: skip
