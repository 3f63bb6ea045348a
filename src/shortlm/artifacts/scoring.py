"""What scoring hands on: BlockScores, and the WorkPlan of `plan-memory`."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field, model_validator

from shortlm.artifacts.base import Artifact, DataFacts, ModelFacts, Provenance, Record


class Race(Record):
    """The blocks that scoring with `--select` has found; it answers for this number and this protection only."""

    selected: list[int] = Field(description="The least important blocks, in order of index.")
    protected: list[int]
    sequences: list[int] = Field(description="How many sequences each block's score is from.")
    block_forwards_full: int = Field(description="What the full sweep would have taken, in the same batches.")

    @property
    def longest(self) -> int:
        """How many sequences the race took; the whole model's perplexity is from as many."""
        return max(self.sequences, default=0)

    @property
    def early(self) -> list[int]:
        """Blocks that left before its end: their scores, from fewer sequences, can't be compared with the others'."""
        return [i for i, count in enumerate(self.sequences) if count < self.longest]


class CriterionScores(Record):
    """The scores of all blocks by one criterion; lower = less important = removed first."""

    scores: list[float] = Field(description="One per block.")
    unit: str
    per_sequence: list[list[float]] | None = Field(
        None, description="L x S; their mean by `weights` orders the blocks."
    )
    weights: list[float] | None = Field(None, description="S: the share of each sequence in the mean.")
    stderr: list[float] | None = Field(None, description="Standard error of each score.")
    paired_stderr: list[float] | None = Field(
        None, description="Standard error of each score's difference to the whole model's, on the same sequences."
    )
    rank_interval: list[tuple[int, int]] | None = Field(None, description="5 % and 95 % of each block's rank.")
    rank_agreement: float | None = Field(None, description="Mean Kendall tau of resampled orders with this order.")
    table: list[list[float]] | None = Field(None, description="Runs: row n-1, column l: blocks l..l+n-1.")
    options: dict[str, Any] = {}
    race: Race | None = Field(None, description="Set if blocks left the race early, with fewer sequences seen.")

    @model_validator(mode="after")
    def _fits(self) -> CriterionScores:
        rows = self.per_sequence or []
        if rows and (len(rows) != len(self.scores) or any(len(row) != len(self.weights or ()) for row in rows)):
            raise ValueError("per_sequence must have a row per block and a column per weight")
        return self

    def order(self) -> list[int]:
        """Block indices, least important first; ties go to the lower index."""
        return sorted(range(len(self.scores)), key=lambda i: (self.scores[i], i))


class BlockScores(Artifact):
    """The output of `score`."""

    kind: Literal["BlockScores"] = "BlockScores"
    model: ModelFacts
    data: DataFacts | None = None
    base_perplexity: float | None = Field(None, description="Of the whole model on the same windows.")
    block_forwards: int = Field(0, description="Blocks computed, each for one batch; the work that was done.")
    processes: int = Field(1, description="How many shared the sequences.")
    criteria: dict[str, CriterionScores] = Field(min_length=1)
    provenance: Provenance

    @model_validator(mode="after")
    def _fits(self) -> BlockScores:
        for name, criterion in self.criteria.items():
            if len(criterion.scores) != self.model.n_blocks:
                raise ValueError(f"'{name}' has {len(criterion.scores)} scores for {self.model.n_blocks} blocks")
            if not all(math.isfinite(value) for value in criterion.scores):
                raise ValueError(f"'{name}' has a score that is NaN or infinite")
        return self


class WorkRow(Record):
    """What one way of scoring takes."""

    name: str = Field(description="The criterion, or 'all together'.")
    streamed: bool = Field(description="Blocks are read from disk one by one.")
    batch_size: int
    passes: int
    peak_bytes: int = Field(description="Of the whole process, or of the accelerator's memory.")
    parts: dict[str, int] = Field(description="What the peak is made of.")
    bytes_read: int
    block_forwards: int
    flops: float
    seconds: float | None = None
    exact: bool = Field(True, description="False where memory is an estimate: the code could not be run on shapes.")


class WorkPlan(Artifact):
    """The output of `plan-memory`."""

    kind: Literal["WorkPlan"] = "WorkPlan"
    model: ModelFacts
    sequences: int
    tokens: int
    weights_bytes: int = Field(description="All weights in the compute type.")
    disk_bytes_per_second: float | None = Field(None, description="Measured; none if the weights are not here.")
    rows: list[WorkRow]
    provenance: Provenance
