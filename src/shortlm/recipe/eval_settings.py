"""Settings of the stages that measure: quality (eval) and speed (bench)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from shortlm.errors import RecipeError
from shortlm.recipe.base import Settings, read_yaml, validated
from shortlm.recipe.presets import with_preset
from shortlm.recipe.stages import TextSettings

MOST = 1_000_000  # of anything that is counted here
Positive = Annotated[int, Field(ge=1, le=MOST)]
NonNegative = Annotated[int, Field(ge=0, le=MOST)]
Batch = Annotated[int, Field(ge=1, le=65_536)]
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
    temperature: float = Field(0.0, ge=0, le=1000, description="Of the samples; 0: always the likeliest token.")
    top_k: int = Field(0, ge=0, le=MOST, description="Draw from so many likeliest tokens; 0: from all.")
    top_p: float = Field(1.0, gt=0, le=1, description="Draw from the likeliest tokens that have this probability.")
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


class WorkloadSettings(Settings):
    """A grid of batches, prompts and outputs, each measured so many times."""

    batches: list[Batch] = Field([1, 8], min_length=1, description="Sequences at once; several as 1,8,64.")
    prompt_tokens: list[Positive] = Field([64], min_length=1, description="Lengths of the prompt; several as 64,512.")
    output_tokens: list[NonNegative] = Field(
        [64], min_length=1, description="Tokens that are written, never fewer; 0: the prompt is only read."
    )
    prompt: str | None = Field(None, description="This text is the prompt, instead of --prompt-tokens random tokens.")
    runs: int = Field(10, ge=1, le=10_000, description="Measured runs of every model on every case.")
    warmup: int = Field(2, ge=0, le=10_000, description="Runs before, which don't count.")
    temperature: float = Field(0.0, ge=0, le=1000, description="0: always the likeliest token.")
    top_k: int = Field(0, ge=0, le=MOST, description="Draw from so many likeliest tokens; 0: from all.")
    top_p: float = Field(1.0, gt=0, le=1, description="Draw from the likeliest tokens that have this probability.")


class BenchSettings(Settings):
    """How speed and memory are measured."""

    source: str | None = Field(None, description="Where these settings were published.")
    workloads: list[WorkloadSettings] = Field([WorkloadSettings()], min_length=1, description="What is measured.")
    backend: Literal["transformers", "vllm"] = Field("transformers", description="What runs the model.")
    cache: Literal["dynamic", "static"] = Field("dynamic", description="KV cache that grows, or that is there at once.")
    compile: bool = Field(False, description="Run the model through torch.compile.")
    breakdown: bool = Field(True, description="Also tell blocks, head and the rest of a decoding step apart.")
    limits: bool = Field(False, description="Also find the largest batch and the longest output that fit.")
    minutes: float | None = Field(
        None,
        gt=0,
        le=100_000,
        description="Time for all of it: rounds are cut short, and what doesn't fit is left out and said.",
    )
    largest: int = Field(65536, ge=1, le=MOST, description="With --limits: batches above this are not tried.")

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, value: Any) -> Any:
        return with_preset("bench", value)


def benching_of(preset: str | None, given: dict[str, Any]) -> dict[str, Any]:
    """Values of BenchSettings: those of a preset, with `given` options laid over it and over its workloads."""
    values = with_preset("bench", {"preset": preset}) if preset else {}
    workload = {name: given[name] for name in WorkloadSettings.model_fields if name in given}
    own = {name: given[name] for name in BenchSettings.model_fields if name in given}
    if "prompt_tokens" in workload:
        workload.setdefault("prompt", None)  # random tokens instead of the preset's text
    workloads = [w | workload for w in values.get("workloads", [{}])]
    if not all(isinstance(w, dict) for w in workloads):
        raise RecipeError("workloads: a list of settings is needed, as - {batches: [1, 8], output_tokens: [128]}")
    return values | own | {"workloads": workloads}


def bench_of(name: str) -> BenchSettings | None:
    """From what stands behind --bench: a preset, a YAML file, 'default', or 'none'."""
    if name == "none":
        return None
    if name == "default":
        return BenchSettings()
    if name.endswith((".yaml", ".yml")):
        return validated(BenchSettings, read_yaml(name), name)
    return validated(BenchSettings, {"preset": name})
