"""What benchmarking hands on: the Benchmark of one or several models, measured in turns on one machine.

Raw samples are kept; medians, spreads and ratios are derived where they are shown.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from shortlm.artifacts.base import Artifact, Count, ModelFacts, Positive, Provenance, Record, Seconds, Size


class BenchedModel(Record):
    """A model as it was measured."""

    role: str
    model: ModelFacts
    weight_bytes: Count = Field(description="Parameters and buffers in memory.")
    context: Count | None = Field(None, description="The longest sequence that its positions allow.")
    dtype: str = ""


class Timing(Record):
    """One run: a batch of prompts read and continued."""

    seconds: Seconds
    first_token: Seconds | None = Field(None, description="Seconds to the first token: the prompt is read.")
    utilisation: Size | None = Field(None, description="Mean share of time in which the GPU computed, from NVML.")
    joules: Size | None = Field(None, description="Energy of the GPU, from NVML.")


class Cell(Record):
    """One model on one workload. `output_tokens` of 0: the prompt is read and nothing written."""

    role: str
    batch: Positive
    prompt_tokens: Count
    output_tokens: Count
    sampling: str = ""
    runs: list[Timing] = Field([], description="In the order of the rounds, warm-up apart.")
    peak_bytes: Count | None = Field(None, description="Most bytes alive at one time, weights included.")
    cache_bytes: Count | None = Field(None, description="The KV cache after the last token.")
    rounds: Count = Field(0, description="How many runs were asked for; there are fewer if the time was up.")
    failed: str | None = Field(None, description="Why there are no runs: out of memory, or out of time.")


class Breakdown(Record):
    """Where the time of one decoding step goes, seconds per token; medians over steps."""

    role: str
    batch: Positive
    prompt_tokens: Count
    steps: Count
    blocks: Seconds
    head: Seconds = Field(description="Final norm and head.")
    rest: Seconds = Field(description="Everything else: embeddings, masks, choosing the token, Python.")


class Limit(Record):
    """The largest batch or the longest output that fits."""

    role: str
    kind: Literal["batch", "output"]
    batch: Count
    prompt_tokens: Count
    output_tokens: Count
    value: Count = Field(description="0 if not even one fits.")
    stopped_by: Literal["memory", "context", "cap"]
    peak_bytes: Count | None = None
    budget_bytes: Count


class Benchmark(Artifact):
    """The output of `bench`."""

    kind: Literal["Benchmark"] = "Benchmark"
    models: list[BenchedModel]
    device: str = Field(description="The device's own name.")
    backend: str
    sampling: str
    interleaved: bool = Field(description="Whether all models took turns within every round.")
    cells: list[Cell]
    breakdowns: list[Breakdown] = []
    limits: list[Limit] = []
    busy_cores: float | None = Field(None, description="Cores that other processes kept busy just before the start.")
    cores: int = Field(0, description="Cores that we may use.")
    minutes: float | None = Field(None, description="The time that all of it might take.")
    left_out: list[str] = Field([], description="What there was no time for, beside cells that have failed.")
    provenance: Provenance
