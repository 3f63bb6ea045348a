"""What a repair did: the step of a manifest that tells of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from shortlm.artifacts.base import ONE_MISTAKE, Block, Count, DataFacts, ModelFacts, Positive, Record, Size
from shortlm.artifacts.steps import Step


class Fold(Record):
    """One weight that was solved for, or one factor."""

    block: Block = Field(description="Of the repaired model.")
    part: str = Field(pattern="^(attention|ffn|block)$", description="Whose output projection; block: a factor of all.")
    ridge: Size | None = Field(None, description="Share of the mean diagonal that was added to it; none: unchanged.")
    factor: float | None = Field(None, description="Of all that writes the residual stream up to this block's end.")
    unknowns: Count = Field(0, description="Inputs of the weight: unknowns of each output.")
    tokens: Count = Field(0, description="That the weight was fitted on.")
    error_before: Size = Field(description="Validation: squared distance to the dense state, over its squared size.")
    error_after: Size


class Depth(Record):
    """How far the states behind a block are from the dense model's, as a share of these (squared), in validation."""

    block: Block = Field(description="Of the repaired model.")
    cut: Size
    repaired: Size


class ValidationLoss(Record):
    """Mean cross-entropy (nats per token) on windows that no weight was fitted on."""

    dense: float
    cut: float
    repaired: float
    stderr: Size | None = Field(description="Of repaired - cut, paired by window.")
    tokens: Positive


class RepairStep(Step):
    """What a repair did: which weights it changed, against which model, and what that gained."""

    kind: Literal["repair"] = "repair"
    method: str = Field(description="With all its options.")
    against: ModelFacts = Field(description="The dense model.")
    blocks: Annotated[list[Block], ONE_MISTAKE] = Field(description="The dense model's index of every block.")
    folds: Annotated[list[Fold], ONE_MISTAKE]
    depths: Annotated[list[Depth], ONE_MISTAKE]
    loss: ValidationLoss
    delivered: bool = Field(True, description="Off: it made the loss worse, and the weights are the cut model's.")
    data: DataFacts
    validation: Positive = Field(description="Windows of the data, the last ones, that no weight was fitted on.")
    options: dict[str, str] = Field({}, description="Other options of the command that were not at their defaults.")

    @model_validator(mode="after")
    def _fits(self) -> RepairStep:
        if sorted(set(self.blocks)) != self.blocks or not self.blocks or self.blocks[-1] >= self.against.n_blocks:
            raise ValueError(f"blocks must be different indices in order, 0..{self.against.n_blocks - 1}")
        if any(entry.block >= len(self.blocks) for entry in (*self.folds, *self.depths)):
            raise ValueError(f"a block beyond the {len(self.blocks)} of the repaired model")
        return self

    def blocks_after(self, blocks: list[int]) -> list[int]:
        """The same. Raises ValueError if another number was repaired."""
        if len(blocks) != len(self.blocks):
            raise ValueError(f"a repair of {len(self.blocks)} blocks, where {len(blocks)} were left")
        return blocks
