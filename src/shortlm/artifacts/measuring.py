"""What evaluating hands on: the Measurement of one model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from shortlm.artifacts.base import Artifact, DataFacts, ModelFacts, Provenance, Record


class Perplexity(Record):
    """exp of the mean cross-entropy over all predicted tokens."""

    text: str
    data: DataFacts
    perplexity: float
    nats_per_token: float
    stderr_nats: float | None = Field(
        None, description="Over windows; that of the perplexity is perplexity times this."
    )
    per_sequence_nats: list[float]
    tokens_per_sequence: list[int]


class Sample(Record):
    """A text that the model wrote."""

    prompt: str
    text: str


class Measurement(Artifact):
    """The output of `eval` for one model."""

    kind: Literal["Measurement"] = "Measurement"
    model: ModelFacts
    role: str = Field("model", description="Its place in a comparison: dense, cut, ...")
    bytes: int = Field(0, description="Size of the weights on disk.")
    perplexities: list[Perplexity] = []
    samples: list[Sample] = []
    provenance: Provenance
