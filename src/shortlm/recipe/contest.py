"""Several ways to make one model smaller, side by side at the same number of parameters."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from shortlm.recipe.base import Settings, read_yaml, validated
from shortlm.recipe.bench_settings import BenchSettings
from shortlm.recipe.eval_settings import EvalSettings
from shortlm.recipe.heal_settings import HealSettings
from shortlm.recipe.recipe import Recipe
from shortlm.recipe.repair_settings import RepairSettings
from shortlm.recipe.search_settings import SearchSettings
from shortlm.recipe.stages import ChooseSettings, CutSettings, ModelSettings, ScoreSettings, TextSettings
from shortlm.recipe.width_settings import WidthSettings

BLOCK_BUDGETS = ("blocks", "drop", "drop_params", "to_params", "drop_kv", "speed_up")
WIDTH_BUDGETS = ("drop_params", "to_params", "ratio")


class Way(Settings):
    """One way: blocks go (`choose`) or heads and channels (`width`), and what is left may be repaired."""

    name: str = Field(pattern=r"^[\w .:,+=()-]{1,60}$", description="What it is called in charts and tables.")
    choose: ChooseSettings | None = Field(None, description="Depth: settings of 'choose', without a budget.")
    width: WidthSettings | None = Field(None, description="Width: settings of 'prune-width', without a budget.")
    repair: RepairSettings | None = Field(None, description="Repair without training; none if empty.")

    @model_validator(mode="after")
    def _one_of_both(self) -> Way:
        if (self.choose is None) == (self.width is None):
            raise ValueError(f"way '{self.name}': give one of choose and width")
        budgets = [n for n in BLOCK_BUDGETS if self.choose and getattr(self.choose, n) is not None]
        budgets += [n for n in WIDTH_BUDGETS if self.width and getattr(self.width, n) is not None]
        if budgets:
            raise ValueError(f"way '{self.name}': {budgets[0]}: all ways have one budget, 'drop' of the contest")
        return self

    @property
    def folder(self) -> str:
        """A name for its folder."""
        return "".join(c if c.isalnum() or c in "-+" else "-" for c in self.name)


class Contest(Settings):
    """All of it: what `shortlm compare RECIPE.yaml` does."""

    name: str = Field("Depth against width", description="Title of the report.")
    source: str | None = Field(None, description="Where these settings were published.")
    model: ModelSettings = ModelSettings()
    text: TextSettings = TextSettings()
    drop: str = Field("25%", description="This share of the blocks goes, and the same parameters by widths.")
    ways: list[Way] = Field(min_length=1, max_length=100)
    search: SearchSettings = SearchSettings()
    cut: CutSettings = CutSettings()
    heal: HealSettings | None = Field(None, description="Training of every result; none if empty.")
    eval: EvalSettings = EvalSettings()
    bench: BenchSettings | None = Field(None, description="Speed and memory of all, in turns; none if empty.")

    @model_validator(mode="after")
    def _told_apart(self) -> Contest:
        names = [way.folder.lower() for way in self.ways]
        if twice := next((way.name for way in self.ways if names.count(way.folder.lower()) > 1), None):
            raise ValueError(f"ways: two are called '{twice}'; give each a name of its own")
        return self

    def recipe(self, way: Way) -> Recipe:
        """The recipe of one way, up to what is measured; a width goes by its text, repair and healing."""
        # whose checks a width has to pass too: nothing of them may depend on the blocks that are protected
        choose = (way.choose or ChooseSettings(protect="none")).model_copy(update={"drop": self.drop})
        score = ScoreSettings(criteria=[choose.criterion or "ppl"], resamples=0)
        return Recipe(
            name=way.name, model=self.model, text=self.text, score=score, choose=choose, search=self.search,
            cut=self.cut, repair=way.repair, heal=self.heal, eval=self.eval,
        )  # fmt: skip


def load_contest(path: Path | str) -> Contest:
    """Read a YAML file. Raises RecipeError naming the file and the field."""
    return validated(Contest, read_yaml(path), str(path))
