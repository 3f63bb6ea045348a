"""What scoring hands on: BlockScores, and the WorkEstimate of `plan-memory`."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from shortlm.artifacts.base import (
    ONE_MISTAKE,
    Artifact,
    Block,
    Blocks,
    Count,
    Counts,
    DataFacts,
    ModelFacts,
    Positive,
    Provenance,
    Record,
    Seconds,
    Size,
    Units,
    Values,
)
from shortlm.artifacts.search import CERTAIN
from shortlm.errors import shown
from shortlm.units import Unit

MOST_SEQUENCES = 1_000_000


class Race(Record):
    """The blocks that scoring with `--select` has found; it answers for this number and this protection only."""

    selected: Blocks = Field(description="The least important blocks, in order of index.")
    protected: Blocks
    sequences: Counts = Field(description="How many sequences each block's score is from.")
    block_forwards_full: Positive = Field(description="What the full sweep would have taken, in the same batches.")

    @property
    def longest(self) -> int:
        """How many sequences the race took; the whole model's perplexity is from as many."""
        return max(self.sequences, default=0)

    @property
    def early(self) -> list[int]:
        """Blocks that left before its end: their scores, from fewer sequences, can't be compared with the others'."""
        return [i for i, count in enumerate(self.sequences) if count < self.longest]


STABLE = 2 * CERTAIN - 1  # Kendall's tau where that share of all pairs has the same order


class CriterionScores(Record):
    """The scores of all blocks by one criterion; lower = less important = removed first."""

    scores: Values = Field(description="One per block, or per unit of BlockScores.units.")
    unit: str
    per_sequence: Annotated[list[Values], ONE_MISTAKE] | None = Field(
        None, description="L x S; their mean by `weights` orders the blocks."
    )
    weights: Values | None = Field(None, description="S: the share of each sequence in the mean.")
    stderr: Values | None = Field(None, description="Standard error of each score.")
    paired_stderr: Values | None = Field(
        None, description="Standard error of each score's difference to the whole model's, on the same sequences."
    )
    rank_interval: Annotated[list[tuple[Block, Block]], ONE_MISTAKE] | None = Field(
        None, description="5 % and 95 % of each block's rank."
    )
    rank_agreement: float | None = Field(
        None, ge=-1, le=1, description="Mean Kendall tau of resampled orders with this order."
    )
    table: Annotated[list[Values], ONE_MISTAKE] | None = Field(
        None, description="Runs: row n-1, column l: blocks l..l+n-1."
    )
    options: dict[str, Any] = {}
    race: Race | None = Field(None, description="Set if blocks left the race early, with fewer sequences seen.")

    @model_validator(mode="after")
    def _fits(self) -> CriterionScores:
        blocks, rows, weights = len(self.scores), self.per_sequence or [], self.weights or []
        if rows and (len(rows) != blocks or any(len(row) != len(weights) for row in rows)):
            raise ValueError("per_sequence must have a row per block and a column per weight")
        if len(weights) > MOST_SEQUENCES:
            raise ValueError(f"at most {MOST_SEQUENCES:,} sequences are read")
        for name in ("stderr", "paired_stderr", "rank_interval"):
            if (values := getattr(self, name)) is not None and len(values) != blocks:
                raise ValueError(f"{name} must have a value per block")
        if self.table is not None and [len(row) for row in self.table] != list(range(blocks, 0, -1)):
            raise ValueError(f"table must have {blocks} rows of {blocks}, {blocks - 1}, ... 1 runs")
        return self

    def refuse_wild(self) -> None:
        """Raise ValueError for numbers that can't be; to be asked when a model's own NaN have been told."""
        if not all(math.isfinite(value) for value in self.scores):
            raise ValueError("has a score that is NaN or infinite")
        if self.weights and not (min(self.weights) >= 0 and sum(self.weights) > 0):
            raise ValueError("has weights that don't sum to more than 0")
        if min([0.0, *(self.stderr or []), *(self.paired_stderr or [])]) < 0:
            raise ValueError("has a negative standard error")

    @property
    def first_start(self) -> int:
        """The first block that a run may begin with (angular:pruneme never offers block 0)."""
        start = self.options.get("first_start", 0)
        return min(start, len(self.scores)) if isinstance(start, int) and start > 0 else 0

    @property
    def stable(self) -> bool | None:
        """Whether nine in ten pairs keep their order on other text of the same kind; None where that is not known."""
        return None if self.rank_agreement is None else self.rank_agreement >= STABLE

    def order(self) -> list[int]:
        """Block indices, least important first; ties go to the lower index."""
        return sorted(range(len(self.scores)), key=lambda i: (self.scores[i], i))


class BlockScores(Artifact):
    """The output of `score`."""

    kind: Literal["BlockScores"] = "BlockScores"
    model: ModelFacts
    data: DataFacts | None = None
    base_perplexity: float | None = Field(None, gt=0, description="Of the whole model on the same windows.")
    block_forwards: Count = Field(0, description="Blocks computed, each for one batch; the work that was done.")
    processes: Positive = Field(1, description="How many shared the sequences.")
    units: Units = Field([], description="What the scores are of, in their order; all blocks if empty.")
    criteria: dict[str, CriterionScores] = Field(min_length=1, max_length=1000)
    provenance: Provenance

    @property
    def rows(self) -> list[Unit]:
        """What the scores are of, in their order."""
        return self.units or [Unit(i) for i in range(self.model.n_blocks)]

    @model_validator(mode="after")
    def _fits(self) -> BlockScores:
        if len(set(self.units)) != len(self.units) or any(unit.block >= self.model.n_blocks for unit in self.units):
            raise ValueError(f"units must be different ones of blocks 0..{self.model.n_blocks - 1}")
        for name, criterion in self.criteria.items():
            if len(criterion.scores) != len(self.rows):
                what = f"{len(self.units)} units" if self.units else f"{self.model.n_blocks} blocks"
                raise ValueError(f"{shown(name)} has {len(criterion.scores)} scores for {what}")
            try:
                criterion.refuse_wild()
            except ValueError as error:
                raise ValueError(f"{shown(name)} {error}") from error
            if criterion.race and not self._raced(criterion.race):
                raise ValueError(f"the race of {shown(name)} does not fit {self.model.n_blocks} blocks")
        return self

    def _raced(self, race: Race) -> bool:
        """Whether a race names different blocks of this model, in order."""
        inside = all(
            sorted({i for i in part if i < self.model.n_blocks}) == part for part in (race.selected, race.protected)
        )
        return inside and 0 < len(race.selected) < self.model.n_blocks and len(race.sequences) == self.model.n_blocks


class WorkRow(Record):
    """What one way of scoring takes."""

    name: str = Field(description="The criterion, or 'all together'.")
    streamed: bool = Field(description="Blocks are read from disk one by one.")
    batch_size: Positive
    passes: Positive
    peak_bytes: Count = Field(description="Of the whole process, or of the accelerator's memory.")
    parts: dict[str, Count] = Field(description="What the peak is made of.")
    bytes_read: Count
    block_forwards: Count
    flops: Size
    seconds: Seconds | None = None
    exact: bool = Field(True, description="False where memory is an estimate: the code could not be run on shapes.")


class WorkEstimate(Artifact):
    """The output of `plan-memory`."""

    kind: Literal["WorkEstimate", "WorkPlan"] = "WorkEstimate"  # its earlier name
    model: ModelFacts
    sequences: Count
    tokens: Count
    weights_bytes: Count = Field(description="All weights in the compute type.")
    disk_bytes_per_second: Size | None = Field(None, description="Measured; none if the weights are not here.")
    rows: list[WorkRow]
    provenance: Provenance
