"""Settings of measuring quality (eval)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from shortlm.recipe.base import Settings, validated
from shortlm.recipe.presets import with_preset
from shortlm.recipe.stages import TextSettings

MOST = 1_000_000  # of anything that is counted here
# What 'default' stands for; with a ?: if the model can write. Perplexity and choices hide broken generation.
STOCK_TASKS = ["commonsense-7", "squad_completion?"]
EMBEDDED_TASKS = ["village", "village_answers?"]


class EvalSettings(Settings):
    """How quality is measured."""

    source: str | None = Field(None, description="Where these settings were published.")
    texts: list[TextSettings] = Field(
        [],
        description="Texts for perplexity; empty: held-out windows of the scoring text (or the same --ids).",
    )
    held_out: int = Field(
        64, ge=1, le=MOST, description="Windows of the scoring text, after those scored, for perplexity."
    )
    batch_size: int = Field(
        0, ge=0, le=MOST, description="Windows that are computed together; 0: as many as run fastest."
    )
    tasks: list[str] = Field(
        [],
        description="Tasks and groups of lm-evaluation-harness, as arc_easy or arc_easy:acc_norm (its main metric); "
        "also 'commonsense-7', 'default' (those and one in which the model writes), or 'none'.",
    )
    task_path: list[str] = Field([], description="Folders with task files (YAML) of your own.")
    local: list[str] = Field(
        [], description="Local files in place of hub data, each as NAME=FILE; NAME is a task or a preset's text."
    )
    shots: int | None = Field(
        None, ge=0, le=MOST, description="Examples before each question; the task's own number if empty."
    )
    limit: int = Field(0, ge=0, le=MOST, description="Only so many questions of each task, for trying; 0 for all.")
    task_batch: int = Field(
        0, ge=0, le=MOST, description="Questions that are computed together; 0: found automatically."
    )
    prompts: list[str] = Field([], description="Prompts of text samples; empty: the beginning of the first text.")
    samples: int = Field(1, ge=0, le=MOST, description="Text samples of each prompt.")
    new_tokens: int = Field(48, ge=0, le=MOST, description="Tokens of a text sample; 0 for none.")
    temperature: float = Field(0.0, ge=0, le=1000, description="Of the samples; 0: greedy decoding.")
    top_k: int = Field(0, ge=0, le=MOST, description="Draw from so many most probable tokens; 0: from all.")
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus sampling: draw from tokens of this probability in all.")
    sample_seed: int = Field(0, ge=0, lt=2**32, description="Seed of the samples.")

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, value: Any) -> Any:
        return with_preset("eval", value)

    @field_validator("local")
    @classmethod
    def _named_files(cls, value: list[str]) -> list[str]:
        wrong = next((item for item in value if not all(part.strip() for part in item.partition("=")[::2])), None)
        if wrong is not None:
            raise ValueError(f"'{wrong}' is not NAME=FILE")
        return value

    def for_model(self, model: str) -> EvalSettings:
        """The same with the tasks and texts that suit this model; to be asked once for all that are compared."""
        suiting = EMBEDDED_TASKS if model == "embedded" else STOCK_TASKS
        tasks = [task for name in self.tasks for task in (suiting if name == "default" else [name])]
        return self.model_copy(update={"tasks": tasks, "texts": [text.for_model(model) for text in self.texts]})

    def local_files(self) -> dict[str, str]:
        """The files by what they stand for."""
        return {name.strip(): file.strip() for name, _, file in (item.partition("=") for item in self.local)}

    def with_local_texts(self) -> EvalSettings:
        """The same with texts of a preset read from the files that `local` gives for them."""
        files = self.local_files()
        texts = [
            t.model_copy(update={"text": files[t.data_name], "subset": None}) if t.data_name in files else t
            for t in self.texts
        ]
        return self.model_copy(update={"texts": texts})


def piqa_labels(questions: Path) -> Path:
    """The file of answers that PIQA's authors put beside that of the questions."""
    return questions.with_name(f"{questions.stem}-labels.lst")


def evaluation_of(preset: str | None, given: dict[str, Any], text: dict[str, Any]) -> EvalSettings:
    """A preset with `given` settings laid over it, and those of a `text` over each of its texts.

    A text that is named replaces those of the preset; `none` is no text. Without a preset there is one text, unless
    tasks are asked and none is named.
    """
    values = with_preset("eval", {"preset": preset} if preset else {}) | given
    texts = values.get("texts", [])
    named = text.get("text", text.get("ids"))
    if named == "none":
        texts = []
    elif named is not None or not (texts or values.get("tasks")):
        texts = [{"sequences": 64} | text]
    else:
        texts = [t | text for t in texts]
    return validated(EvalSettings, values | {"texts": texts})
