"""What pruning of widths did: the step of a manifest that tells of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from shortlm.artifacts.base import ONE_MISTAKE, Count, DataFacts, ModelFacts, Record
from shortlm.artifacts.cut_plan import Equivalence
from shortlm.artifacts.steps import Step


class Width(Record):
    """What one block has left."""

    heads: Annotated[list[Count], ONE_MISTAKE] = Field(description="KV heads that stayed, by their numbers before.")
    heads_before: Count
    channels: Count = Field(description="Of the FFN that stayed.")
    channels_before: Count

    @model_validator(mode="after")
    def _fits(self) -> Width:
        if sorted(set(self.heads)) != self.heads or (self.heads and self.heads[-1] >= self.heads_before):
            raise ValueError(f"heads must be different numbers in order, below {self.heads_before}")
        if self.channels > self.channels_before:
            raise ValueError(f"{self.channels} channels of {self.channels_before}")
        return self


class WidthStep(Step):
    """Heads and channels that went: by which method, from which blocks, and how it is written."""

    kind: Literal["width"] = "width"
    method: str = Field(description="With all its options.")
    shape: Literal["even", "free"]
    form: Literal["plain", "shortlm"]
    found: ModelFacts = Field(description="The model that was narrowed.")
    parameters_after: Count
    widths: Annotated[list[Width], ONE_MISTAKE] = Field(description="Of every block.")
    bias: bool = Field(False, description="Whether what went left its mean behind as a bias of the output projection.")
    data: DataFacts | None = None
    equivalence: Equivalence | None = None
    options: dict[str, str] = Field({}, description="Other options of the command that were not at their defaults.")

    @model_validator(mode="after")
    def _fits(self) -> WidthStep:
        if len(self.widths) != self.found.n_blocks:
            raise ValueError(f"widths of {len(self.widths)} blocks, the model has {self.found.n_blocks}")
        return self

    def blocks_after(self, blocks: list[int]) -> list[int]:
        """The same. Raises ValueError if another number was narrowed."""
        if len(blocks) != len(self.widths):
            raise ValueError(f"widths of {len(self.widths)} blocks, where {len(blocks)} were left")
        return blocks
