"""Settings of measuring speed and memory (bench)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from shortlm.errors import RecipeError
from shortlm.recipe.base import Settings, read_yaml, validated
from shortlm.recipe.presets import with_preset

MOST = 1_000_000  # of anything that is counted here
Positive = Annotated[int, Field(ge=1, le=MOST)]
NonNegative = Annotated[int, Field(ge=0, le=MOST)]
Batch = Annotated[int, Field(ge=1, le=65_536)]


class WorkloadSettings(Settings):
    """A grid of batches, prompts and outputs, each measured so many times."""

    batches: list[Batch] = Field([1, 8], min_length=1, description="Sequences at once; several as 1,8,64.")
    prompt_tokens: list[Positive] = Field([64], min_length=1, description="Lengths of the prompt; several as 64,512.")
    output_tokens: list[NonNegative] = Field(
        [64], min_length=1, description="Tokens that are written, never fewer; 0: prefill alone."
    )
    prompt: str | None = Field(None, description="This text is the prompt, instead of --prompt-tokens random tokens.")
    runs: int = Field(10, ge=1, le=10_000, description="Measured runs of every model on every case.")
    warmup: int = Field(2, ge=0, le=10_000, description="Runs before, which don't count.")
    temperature: float = Field(0.0, ge=0, le=1000, description="0: greedy decoding.")
    top_k: int = Field(0, ge=0, le=MOST, description="Draw from so many most probable tokens; 0: from all.")
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus sampling: draw from tokens of this probability in all.")


class BenchSettings(Settings):
    """How speed and memory are measured."""

    source: str | None = Field(None, description="Where these settings were published.")
    workloads: list[WorkloadSettings] = Field([WorkloadSettings()], min_length=1, description="What is measured.")
    backend: Literal["transformers", "vllm"] = Field("transformers", description="What runs the model.")
    cache: Literal["dynamic", "static"] = Field("dynamic", description="KV cache that grows, or that is there at once.")
    compile: bool = Field(False, description="Run the model through torch.compile.")
    breakdown: bool = Field(True, description="Also time blocks, lm_head and the rest of a decoding step apart.")
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
