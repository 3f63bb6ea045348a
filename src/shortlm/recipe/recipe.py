"""The whole path: what `shortlm run` does."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from shortlm.errors import RecipeError
from shortlm.recipe.base import Settings, read_yaml, validated
from shortlm.recipe.bench_settings import BenchSettings
from shortlm.recipe.eval_settings import EvalSettings
from shortlm.recipe.heal_settings import HealSettings
from shortlm.recipe.overlap import trained_on
from shortlm.recipe.repair_settings import RepairSettings
from shortlm.recipe.search_settings import SearchSettings
from shortlm.recipe.stages import (
    ChooseSettings,
    CutSettings,
    ModelSettings,
    ScoreSettings,
    TextSettings,
)  # fmt: skip


class Recipe(Settings):
    """The whole path: what `shortlm run` does."""

    name: str = Field("shortlm run", description="Title of the report.")
    source: str | None = Field(None, description="Where these settings were published.")
    model: ModelSettings = ModelSettings()
    text: TextSettings = TextSettings()
    score: ScoreSettings = ScoreSettings()
    choose: ChooseSettings = ChooseSettings(drop="25%", method="auto")
    search: SearchSettings = SearchSettings()
    cut: CutSettings = CutSettings()
    repair: RepairSettings | None = Field(None, description="Repair without training after the cut; none if empty.")
    heal: HealSettings | None = Field(None, description="Training after that; none if empty.")
    rounds: int = Field(
        1,
        ge=1,
        le=1000,
        description="Prune and heal in so many rounds, each scoring anew and removing its share of the blocks.",
    )
    eval: EvalSettings = EvalSettings()
    bench: BenchSettings | None = Field(None, description="Speed and memory before and after; none if empty.")

    @property
    def scored_text(self) -> TextSettings:
        """The text that is scored: with --sequences auto, which is for the search, as much as it begins with."""
        return self.text.model_copy(update={"sequences": 10}) if self.text.sequences == "auto" else self.text

    def eval_texts(self) -> list[TextSettings]:
        """The texts for perplexity: those given, or held-out windows of the scoring text."""
        if self.eval.texts or self.text.ids is not None:
            return self.eval.with_local_texts().texts or [self.text]
        if not self.text.sequences:
            raise RecipeError(
                "all of the text is scored and nothing is left to hold out; give --eval-text or --sequences"
            )
        return [self.text.model_copy(update={"skip": self._behind_scoring, "sequences": self.eval.held_out})]

    @property
    def repair_text(self) -> TextSettings:
        """Windows behind all that is scored or held out. Raises RecipeError where all of the text is scored."""
        if not self.text.sequences:
            raise RecipeError("all of the text is scored and nothing is left to repair by; give --sequences")
        held_out = max(self.eval.held_out, self.search.held_out) + self.search.confirm
        return self.text.model_copy(update={"skip": self._behind_scoring + held_out, "sequences": 0})

    @property
    def _behind_scoring(self) -> int:
        return self.text.skip + (self.search.most_sequences if self.text.sequences == "auto" else self.text.count)

    def refuse_training_on_what_is_measured(self) -> None:
        """Perplexity on text that was trained on says nothing."""
        trained = [source for phase in (self.heal.phases if self.heal else []) for source in phase.data]
        for source in trained:
            for measured in self.eval_texts():
                if trained_on(measured, source):
                    raise RecipeError(
                        f"{measured.text}: would be trained on and measured on; give other data or --eval-text"
                    )


def load_recipe(path: Path | str) -> Recipe:
    """Read a YAML recipe. Raises RecipeError naming the file and the field."""
    return validated(Recipe, read_yaml(path), str(path))
