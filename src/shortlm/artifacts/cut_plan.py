"""What choosing and cutting hand on: the CutPlan, and the step of a manifest that tells of a cut."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from shortlm.artifacts.base import (
    ONE_MISTAKE,
    Artifact,
    Blocks,
    Count,
    ModelFacts,
    Positive,
    Provenance,
    Record,
    Share,
    Sublayers,
)
from shortlm.artifacts.search import CERTAIN, Search
from shortlm.artifacts.steps import Step
from shortlm.units import Unit


class CutPlan(Artifact):
    """The output of `choose`: which blocks go, and why."""

    kind: Literal["CutPlan"] = "CutPlan"
    model: ModelFacts
    removed: Blocks = Field(description="Whole blocks.")
    removed_sublayers: Sublayers = Field([], description="Attention or FFN of blocks that stay, as 7.attention.")
    method: str
    criterion: str
    budget: str
    protected: Blocks = []
    scores: Annotated[list[float], ONE_MISTAKE] | None = None
    parameters_after: Positive
    agreement: Share | None = Field(None, description="Share of bootstrap resamples that choose the same blocks.")
    source: str = Field("", description="Where the scores come from.")
    search: Search | None = Field(None, description="The sets that were tried, where the choice asked the model.")
    provenance: Provenance

    @model_validator(mode="after")
    def _fits(self) -> CutPlan:
        n_blocks, units = self.model.n_blocks, self.removed_sublayers
        if sorted({i for i in self.removed if 0 <= i < n_blocks}) != self.removed:
            raise ValueError(f"removed must be different block indices in order, 0..{n_blocks - 1}")
        if not (self.removed or units):
            raise ValueError("removed must name a block, or removed_sublayers a sublayer")
        if len(self.removed) == n_blocks:
            raise ValueError("removed must leave a block")
        if sorted(set(units)) != units or any(u.block >= n_blocks or u.block in self.removed for u in units):
            raise ValueError("removed_sublayers must be different sublayers, in order, of blocks that stay")
        sets = [found.units for trail in self.search.trails for found in trail.found] if self.search else []
        if wrong := next((unit for units in sets for unit in units if unit.block >= n_blocks), None):
            raise ValueError(f"the search names {wrong}, a model has blocks 0..{n_blocks - 1}")
        if self.scores is not None and len(self.scores) != self.model.n_blocks:
            raise ValueError(f"{len(self.scores)} scores for {self.model.n_blocks} blocks")
        return self

    @property
    def kept(self) -> list[int]:
        """Original indices of the blocks that stay, in order."""
        removed = set(self.removed)
        return [i for i in range(self.model.n_blocks) if i not in removed]

    @property
    def units(self) -> list[Unit]:
        """All that goes."""
        return [*map(Unit, self.removed), *self.removed_sublayers]

    @property
    def certain(self) -> bool | None:
        """Whether other text of the same kind would hardly choose otherwise; None where that is not known."""
        if self.search and self.search.certainty:
            return None if self.search.after_repair else self.search.certainty.enough
        return None if self.agreement is None else self.agreement >= CERTAIN


class Equivalence(Record):
    """The equivalence check of a cut: the written model against the original with the same blocks bypassed."""

    max_abs_difference: float = Field(description="Of a logit.")
    max_abs_difference_cached: float | None = Field(description="With the KV cache in use; none if there is no cache.")
    tolerance: float
    tolerance_cached: float | None = None
    streamed: bool = Field(False, description="Compared block by block from disk, which leaves the cache out.")
    tokens: Count
    dtype: str


Form: TypeAlias = Literal["plain", "shortlm", "nemotron-nas", "zeroed"]


class CutStep(Step):
    """What a cut did: what the plan removed, by what scores, and how near the result is to the original bypassed."""

    kind: Literal["cut"] = "cut"
    plan: CutPlan = Field(description="For the model that the step found; its indices are those of that model.")
    blocks: Blocks | None = Field(
        None,
        min_length=1,
        description="Original indices of the blocks that stay, where earlier cuts are not among the steps.",
    )
    form: Form = Field("plain", description="How the result is written: the architecture's own type, or another.")
    equivalence: Equivalence | None = None
    mtp: Literal["kept", "dropped"] | None = Field(
        None, description="What became of heads for multi-token prediction; null where there were none."
    )

    @model_validator(mode="after")
    def _fits(self) -> CutStep:
        if self.blocks is None:
            return self
        if sorted(set(self.blocks)) != self.blocks:
            raise ValueError("blocks must be different indices in order")
        if len(self.blocks) != len(self.plan.kept):
            raise ValueError(f"{len(self.blocks)} blocks, the plan leaves {len(self.plan.kept)}")
        if self.blocks == self.plan.kept:
            self.blocks = None  # they follow from the plan
        return self

    def blocks_after(self, blocks: list[int]) -> list[int]:
        """Those that the plan keeps. Raises ValueError if it is for another number of blocks."""
        if len(blocks) != self.plan.model.n_blocks:
            raise ValueError(f"a plan for {self.plan.model.n_blocks} blocks, where {len(blocks)} were left")
        return self.blocks or [blocks[i] for i in self.plan.kept]
