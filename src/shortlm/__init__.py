"""shortlm makes language models shorter: it scores blocks, chooses, cuts, heals, and checks the result.

The verbs in the order of the path: score, choose, cut, heal, evaluate, bench, quantize, compare, run. The nouns they
hand on: BlockScores, CutPlan, Manifest, Healing, Measurement, Benchmark, and Evidence, which reports are drawn from;
their settings: ModelSettings, TextSettings, ScoreSettings, ChooseSettings, CutSettings, HealSettings, EvalSettings,
BenchSettings, Recipe. Everything is imported when it is first used; transformers is told of our own model type.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from shortlm.registering import register

__version__ = "0.1.0"

if TYPE_CHECKING:  # what editors and type checkers see of the names below
    from shortlm.artifacts import (
        Benchmark as Benchmark,
        BlockScores as BlockScores,
        CutPlan as CutPlan,
        HealEstimate as HealEstimate,
        Healing as Healing,
        Manifest as Manifest,
        Measurement as Measurement,
        Perplexity as Perplexity,
        WorkEstimate as WorkEstimate,
        load_plan as load_plan,
    )
    from shortlm.bench import bench as bench
    from shortlm.choose import (
        choose as choose,
        plan_by_hand as plan_by_hand,
        published_names as published_names,
        published_scores as published_scores,
        race_scores as race_scores,
        search as search,
    )
    from shortlm.cut import cut as cut
    from shortlm.errors import ShortLMError as ShortLMError
    from shortlm.evaluate import evaluate as evaluate, perplexity as perplexity
    from shortlm.export import (
        export_gguf as export_gguf,
        export_mergekit as export_mergekit,
        push as push,
        quantize as quantize,
    )
    from shortlm.heal import estimate_healing as estimate_healing, heal as heal
    from shortlm.model import OpenModel as OpenModel, open_model as open_model
    from shortlm.recipe import (
        BenchSettings as BenchSettings,
        ChooseSettings as ChooseSettings,
        Contest as Contest,
        CutSettings as CutSettings,
        DemoSettings as DemoSettings,
        EvalSettings as EvalSettings,
        GgufSettings as GgufSettings,
        HealSettings as HealSettings,
        ModelSettings as ModelSettings,
        PhaseSettings as PhaseSettings,
        QuantizeSettings as QuantizeSettings,
        Recipe as Recipe,
        RepairSettings as RepairSettings,
        ScoreSettings as ScoreSettings,
        SearchSettings as SearchSettings,
        SourceSettings as SourceSettings,
        TextSettings as TextSettings,
        WidthSettings as WidthSettings,
        WorkloadSettings as WorkloadSettings,
        healing_of as healing_of,
        load_contest as load_contest,
        load_recipe as load_recipe,
    )
    from shortlm.repair import repair as repair
    from shortlm.report import (
        Evidence as Evidence,
        model_card as model_card,
        write_card as write_card,
        write_markdown as write_markdown,
        write_page as write_page,
        write_results as write_results,
    )
    from shortlm.run import compare as compare, compare_ways as compare_ways, run as run
    from shortlm.score import (
        CRITERIA as CRITERIA,
        plan_memory as plan_memory,
        score as score,
        score_model as score_model,
    )
    from shortlm.text import Windows as Windows, open_windows as open_windows, windows_from_ids as windows_from_ids
    from shortlm.width import prune_width as prune_width

_HOMES = {
    "shortlm.score": ["score", "score_model", "plan_memory", "CRITERIA"],
    "shortlm.choose": ["choose", "search", "race_scores", "plan_by_hand", "published_scores", "published_names"],
    "shortlm.cut": ["cut"],
    "shortlm.repair": ["repair"],
    "shortlm.width": ["prune_width"],
    "shortlm.heal": ["heal", "estimate_healing"],
    "shortlm.evaluate": ["evaluate", "perplexity"],
    "shortlm.bench": ["bench"],
    "shortlm.export": ["quantize", "export_gguf", "export_mergekit", "push"],
    "shortlm.report": ["Evidence", "write_page", "write_markdown", "write_results", "model_card", "write_card"],
    "shortlm.run": ["compare", "compare_ways", "run"],
    "shortlm.model": ["open_model", "OpenModel"],
    "shortlm.text": ["open_windows", "windows_from_ids", "Windows"],
    "shortlm.artifacts": [
        "BlockScores", "CutPlan", "Healing", "HealEstimate", "Manifest", "Measurement", "Perplexity", "WorkEstimate",
        "load_plan", "Benchmark",
    ],
    "shortlm.errors": ["ShortLMError"],
    "shortlm.recipe": [
        "ModelSettings", "TextSettings", "ScoreSettings", "ChooseSettings", "SearchSettings", "CutSettings",
        "RepairSettings", "WidthSettings", "QuantizeSettings", "GgufSettings", "DemoSettings",
        "EvalSettings", "BenchSettings", "WorkloadSettings",
        "HealSettings", "PhaseSettings", "SourceSettings", "Recipe", "load_recipe", "healing_of", "Contest",
        "load_contest",
    ],
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME_OF)


class _Package(ModuleType):
    """Importing shortlm.score, a folder of the same name as the verb, must not put the folder in the verb's place."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME_OF and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
register()  # our own model type; imports nothing heavy


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'shortlm' has no attribute '{name}'")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
