"""What the stages hand to one another: BlockScores, CutPlan, Measurement. JSON with provenance.

Every artifact says from which model, revision, data, seed, versions and device it came. Raw samples are
kept (per-sequence values); statistics are derived from them.
"""

from __future__ import annotations

import math
import os
import platform
import sys
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from shortlm.errors import ShortLMError
from shortlm.outputs import write_text

A = TypeVar("A", bound="Artifact")


class Record(BaseModel):
    """A part of an artifact; unknown keys are refused, so that a wrong file is noticed."""

    model_config = ConfigDict(extra="forbid")


class ModelFacts(Record):
    """A model as its config tells it."""

    name: str
    revision: str | None = None
    architecture: str
    n_blocks: int
    block_parameters: list[int] = Field(description="Parameters of each block.")
    parameters: int = Field(description="All parameters; tied ones count once.")

    @model_validator(mode="after")
    def _fits(self) -> ModelFacts:
        if len(self.block_parameters) != self.n_blocks:
            raise ValueError(f"{len(self.block_parameters)} block_parameters for {self.n_blocks} blocks")
        return self


class DataFacts(Record):
    """The token windows that were used."""

    source: str
    sha256: str = Field(description="Hash of the token ids and of the mask.")
    sequences: int
    tokens: int
    bos: str
    seed: int | None = None


class Provenance(Record):
    """When, with what and where an artifact was made."""

    created: str
    versions: dict[str, str]
    machine: str
    device: str = "cpu"
    dtype: str | None = None
    seconds: float | None = None
    key: str | None = Field(
        None, description="Hash of all settings and inputs; `run` skips a stage whose key is the same."
    )


class Artifact(Record):
    """A JSON file that one stage writes and the next one reads."""

    def save(self, path: Path | str, force: bool = False) -> Path:
        """Write the artifact, whole or not at all. Raises OutputError if `path` exists and `force` is off."""
        return write_text(path, self.model_dump_json(indent=1) + "\n", force)

    @classmethod
    def load(cls: type[A], path: Path | str) -> A:
        """Read the artifact back. Raises ShortLMError naming the file and what is wrong with it."""
        path = Path(path)
        if not path.is_file():
            raise ShortLMError(f"{path}: no such file; a {cls.__name__} file (JSON) is needed")
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise ShortLMError(f"{path}: is not a {cls.__name__} file: {where}: {first['msg']}") from error


class Race(Record):
    """The blocks that scoring with `--select` has found; it answers for this number and this protection only."""

    selected: list[int] = Field(description="The least important blocks, in order of index.")
    protected: list[int]
    sequences: list[int] = Field(description="How many sequences each block's score is from.")
    block_forwards_full: int = Field(description="What the full sweep would have taken, in the same batches.")


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


def load_plan(path: Path | str) -> CutPlan:
    """A CutPlan from its own file or from the `manifest.json` of a checkpoint that was cut by it."""
    path = Path(path)
    if path.is_dir():
        path = path / "manifest.json"
    if path.is_file() and b'"Manifest"' in path.read_bytes()[:200]:
        return Manifest.load(path).plan
    return CutPlan.load(path)


def provenance(
    device: str = "cpu", dtype: str | None = None, seconds: float | None = None, key: str | None = None
) -> Provenance:
    """The present machine, moment and library versions."""
    names = ["shortlm", "torch", "transformers", "tokenizers", "safetensors", "numpy"]
    versions = {"python": platform.python_version()} | {n: v for n in names if (v := _version(n))}
    created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    machine = f"{platform.system()} {platform.machine()}, {_cores()} cores"
    return Provenance(
        created=created, versions=versions, machine=machine, device=device, dtype=dtype, seconds=seconds, key=key
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
