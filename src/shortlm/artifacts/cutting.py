"""What choosing and cutting hand on: the CutPlan, and the Manifest of a cut checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from shortlm.artifacts.base import Artifact, ModelFacts, Provenance, Record
from shortlm.paths import beginning, user_path


class CutPlan(Artifact):
    """The output of `choose`: which blocks go, and why."""

    kind: Literal["CutPlan"] = "CutPlan"
    model: ModelFacts
    removed: list[int]
    method: str
    criterion: str
    budget: str
    protected: list[int] = []
    scores: list[float] | None = None
    parameters_after: int
    agreement: float | None = Field(None, description="Share of bootstrap resamples that choose the same blocks.")
    source: str = Field("", description="Where the scores come from.")
    provenance: Provenance

    @model_validator(mode="after")
    def _fits(self) -> CutPlan:
        if not self.removed or sorted({i for i in self.removed if 0 <= i < self.model.n_blocks}) != self.removed:
            raise ValueError(f"removed must be different block indices in order, 0..{self.model.n_blocks - 1}")
        return self

    @property
    def kept(self) -> list[int]:
        """Original indices of the blocks that stay, in order."""
        return [i for i in range(self.model.n_blocks) if i not in set(self.removed)]


class Proof(Record):
    """The written model against the original with the same blocks bypassed."""

    max_abs_difference: float
    max_abs_difference_cached: float | None = Field(description="With the KV cache in use; none if there is no cache.")
    tolerance: float
    tolerance_cached: float | None = None
    streamed: bool = Field(False, description="Compared block by block from disk, which leaves the cache out.")
    tokens: int
    dtype: str


class Manifest(Artifact):
    """`manifest.json` of a cut checkpoint: what was removed, by what scores, from which revision."""

    kind: Literal["Manifest"] = "Manifest"
    plan: CutPlan
    blocks: list[int] = Field(description="The original index of every block of this checkpoint.")
    bytes_before: int
    bytes_after: int
    proof: Proof | None = None
    provenance: Provenance


def load_plan(path: Path | str) -> CutPlan:
    """A CutPlan from its own file or from the `manifest.json` of a checkpoint that was cut by it."""
    path = user_path(path)
    if path.is_dir():
        path = path / "manifest.json"
    if path.is_file() and b'"Manifest"' in beginning(path):
        return Manifest.load(path).plan
    return CutPlan.load(path)
