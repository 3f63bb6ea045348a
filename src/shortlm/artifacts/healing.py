"""What healing hands on: the Healing of one checkpoint, and the HealEstimate of `--dry-run`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from shortlm.artifacts.base import (
    Artifact,
    Count,
    DataFacts,
    ModelFacts,
    Positive,
    Provenance,
    Record,
    Seconds,
    Share,
    Size,
)


class LogEntry(Record):
    """The mean since the entry before it."""

    step: Count
    tokens: Count = Field(description="Computed up to here in this phase, padding apart.")
    targets: Count = Field(
        description="With a label, up to here: answer tokens, or all but the first of each window (or document)."
    )
    loss: float = Field(description="As trained, per target: cross-entropy in nats, or the loss of distillation.")
    rate: float = Field(description="Learning rate.")
    grad_norm: float
    seconds: Seconds = Field(description="Spent training up to here, validation and saving apart.")


class Validation(Record):
    """The losses on all validation sets at one step."""

    step: Count
    tokens: Count
    seconds: Seconds
    nats_per_token: dict[str, float] = Field(description="Mean cross-entropy over the targets of each set.")


class Phase(Record):
    """One phase of training, as it went."""

    method: str
    settings: dict[str, Any]
    data: DataFacts = Field(description="Of all records; of plain text, which is read on and on, the first 512 rows.")
    validation_data: dict[str, DataFacts]
    trainable: Count = Field(description="Parameters trained.")
    parameters: Positive
    steps: Count
    processes: Positive
    precision: str
    log: list[LogEntry]
    validations: list[Validation]
    padding: Share = Field(0.0, description="Share of what was computed that is padding.")
    kept_step: Count = Field(description="The step whose weights are the result.")
    merge_difference: float | None = Field(
        None, description="Largest difference of logits between the adapter model and the merged one."
    )
    peak_bytes: Count = Field(description="Of the first process: resident, or of its accelerator's memory.")
    seconds: Seconds = Field(description="Training, validation and saving.")

    @property
    def targets_per_second(self) -> float:
        """Tokens with a label, per second of training."""
        last = self.log[-1] if self.log else None
        return last.targets / last.seconds if last and last.seconds else 0.0


class Healing(Artifact):
    """`healing.json` of a healed checkpoint: every phase as it went."""

    kind: Literal["Healing"] = "Healing"
    model: ModelFacts
    phases: list[Phase]
    provenance: Provenance


class PhaseEstimate(Record):
    """What one phase will take."""

    method: str
    trainable: Count
    steps: Count
    rows_per_step: Count
    tokens_per_step: Count
    tokens: Count
    micro_batches: Count = Field(description="Per step, over all processes.")
    processes: Positive
    parts: dict[str, Count] = Field(description="What the peak memory of one process is made of, in bytes.")
    peak_bytes: Count
    flops: Size
    seconds: Seconds | None = Field(None, description="At the measured speed of this device, or at the rate given.")
    rate: str = Field("", description="Where the time comes from.")


class HealEstimate(Artifact):
    """The output of `heal --dry-run`."""

    kind: Literal["HealEstimate", "HealPlan"] = "HealEstimate"  # as older files call it
    model: ModelFacts
    phases: list[PhaseEstimate]
    provenance: Provenance
