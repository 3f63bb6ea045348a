"""What quantisation did: the step of a manifest that tells of it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from shortlm.artifacts.base import Count, DataFacts, Positive, Record, Size
from shortlm.artifacts.steps import Step


class LossChange(Record):
    """Mean cross-entropy (nats per token) on held-out windows, before and after."""

    before: float
    after: float
    stderr: Size | None = Field(description="Of after - before, paired by window.")
    tokens: Positive


class QuantizeStep(Step):
    """Weights of linear layers that became integers: by which method, of how many bits, with what tool."""

    kind: Literal["quantize"] = "quantize"
    method: Literal["gptq", "rtn"]
    bits: Literal[4, 8]
    group_size: Count = Field(description="Inputs that share a scale; 0: all of an output channel.")
    act_order: bool = Field(False, description="Whether columns were taken by the size of their activations.")
    layers: Positive = Field(description="Linear layers that were quantised.")
    parameters: Positive = Field(description="Of these layers; all others stay as they were.")
    tool: str = Field(description="With its version.")
    data: DataFacts | None = Field(None, description="That the calibration saw; none where it needs no data.")
    loss: LossChange | None = None
