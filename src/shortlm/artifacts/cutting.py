"""What choosing and cutting hand on: the CutPlan, and the Manifest of a cut checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

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
from shortlm.paths import beginning, user_path
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


class Proof(Record):
    """The written model against the original with the same blocks bypassed."""

    max_abs_difference: float
    max_abs_difference_cached: float | None = Field(description="With the KV cache in use; none if there is no cache.")
    tolerance: float
    tolerance_cached: float | None = None
    streamed: bool = Field(False, description="Compared block by block from disk, which leaves the cache out.")
    tokens: Count
    dtype: str


class Manifest(Artifact):
    """`manifest.json` of a cut checkpoint: what was removed, by what scores, from which revision."""

    kind: Literal["Manifest"] = "Manifest"
    plan: CutPlan
    blocks: Blocks = Field(min_length=1, description="The original index of every block of this checkpoint.")
    base_path: str | None = Field(None, description="The folder of the model that was cut, where that was local.")
    bytes_before: Count
    bytes_after: Count
    proof: Proof | None = None
    provenance: Provenance

    @model_validator(mode="after")
    def _fits(self) -> Manifest:
        if sorted(set(self.blocks)) != self.blocks:
            raise ValueError("blocks must be different indices in order")
        return self


def manifest_of(folder: Path) -> Manifest | None:
    """That of a checkpoint which was cut; None if it was not, or if the file of that name is another tool's.

    Raises ShortLMError for a manifest of ours that can't be read.
    """
    path = folder / "manifest.json"
    return Manifest.load(path) if path.is_file() and b'"Manifest"' in beginning(path) else None


def load_plan(path: Path | str) -> CutPlan:
    """A CutPlan from its own file or from the `manifest.json` of a checkpoint that was cut by it."""
    path = user_path(path)
    if path.is_dir():
        path = path / "manifest.json"
    if path.is_file() and b'"Manifest"' in beginning(path):
        return Manifest.load(path).plan
    return CutPlan.load(path)
