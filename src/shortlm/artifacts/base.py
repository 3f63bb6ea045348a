"""The form of every artifact: JSON, unknown keys refused, with the provenance of model, data, machine and moment."""

from __future__ import annotations

import os
import platform
import sys
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, ValidationError, model_validator

from shortlm.documents import read_bytes, refuse_crowded
from shortlm.errors import PlanError, ShortLMError, shortened
from shortlm.outputs import write_text
from shortlm.paths import user_path
from shortlm.units import BLOCK, MOST_BLOCKS, PARTS, Unit, unit_list

A = TypeVar("A", bound="Artifact")
MOST_BYTES = 128 * 2**20  # of a file: the scores of 100 blocks on 10,000 sequences by five criteria have 100 million
MOST_VALUES = 6_000_000  # which take 150 bytes each while they are checked
MOST_KEYS = 500_000

# Bounds within which sums, squares, charts and printing can't go wrong.
MOST = 1e100
Count = Annotated[int, Field(ge=0, le=2**62)]
Positive = Annotated[int, Field(ge=1, le=2**62)]
Seconds = Annotated[float, Field(ge=0)]
Size = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Block = Annotated[int, Field(ge=0, lt=MOST_BLOCKS)]

ONE_MISTAKE = Field(fail_fast=True)  # a report of each in a long list would take gigabytes
Blocks = Annotated[list[Block], ONE_MISTAKE]
Counts = Annotated[list[Count], ONE_MISTAKE]
Values = Annotated[list[float], ONE_MISTAKE]


def _unit(value: Any) -> Unit:
    """A unit as JSON holds it ("7", "7.attention"), or as it is."""
    try:
        units = [value] if isinstance(value, Unit) else unit_list(value if isinstance(value, str) else "", "units")
    except ShortLMError:
        units = []
    if len(units) != 1 or not 0 <= units[0].block < MOST_BLOCKS:
        raise ValueError("must be a block or the attention or ffn of one, as 7, 7.attention")
    return units[0]


def _sublayer(value: Any) -> Unit:
    if isinstance(value, (str, Unit)) and (unit := _unit(value)).part != BLOCK:
        return unit
    raise ValueError("must be the attention or ffn of a block, as 7.attention")


Units = Annotated[list[Annotated[Unit, PlainValidator(_unit), PlainSerializer(str)]], ONE_MISTAKE]
Sublayers = Annotated[list[Annotated[Unit, PlainValidator(_sublayer), PlainSerializer(str)]], ONE_MISTAKE]


class Record(BaseModel):
    """A part of an artifact; unknown keys are refused, so that a wrong file is noticed."""

    model_config = ConfigDict(extra="forbid", str_max_length=1_000_000)


class ModelFacts(Record):
    """A model as its config tells it."""

    name: str
    revision: str | None = None
    architecture: str
    n_blocks: int = Field(ge=1, le=MOST_BLOCKS)
    block_parameters: Counts = Field(description="Parameters of each block.")
    attention_parameters: Counts | None = Field(None, description="Of each block's attention, if it can be told.")
    ffn_parameters: Counts | None = Field(None, description="Of each block's FFN, if it can be told.")
    parameters: Positive = Field(description="All parameters; tied ones count once.")
    auto_class: str = Field("AutoModelForCausalLM", description="Of transformers, that makes the model whole.")

    @model_validator(mode="after")
    def _fits(self) -> ModelFacts:
        if len(self.block_parameters) != self.n_blocks:
            raise ValueError(f"{len(self.block_parameters)} block_parameters for {self.n_blocks} blocks")
        if max(self.block_parameters) > self.parameters:  # their sum may be: blocks can share parameters
            raise ValueError(f"a block of {max(self.block_parameters)} parameters in a model of {self.parameters}")
        for counts in (self.attention_parameters, self.ffn_parameters):
            if counts is not None and any(a > b for a, b in zip_longest(counts, self.block_parameters, fillvalue=-1)):
                raise ValueError("a sublayer of more parameters than its block, or not one for each block")
        return self

    def parameters_of(self, unit: Unit) -> int:
        """Parameters of a unit. Raises PlanError for a sublayer that couldn't be told apart."""
        counts = dict(zip(PARTS, (self.block_parameters, self.attention_parameters, self.ffn_parameters), strict=True))
        of_part = counts[unit.part]
        if of_part is None or not of_part[unit.block]:
            raise PlanError(
                f"{self.name}: block {unit.block} has no {unit.part} that can be told apart; "
                "only whole blocks can be left out"
            )
        return of_part[unit.block]


class DataFacts(Record):
    """The token windows that were used."""

    source: str
    sha256: str = Field(description="Hash of the token ids and of the mask.")
    sequences: Count
    tokens: Count
    bos: str
    seed: Count | None = None


class Provenance(Record):
    """When, with what and where an artifact was made."""

    created: str
    versions: dict[str, str]
    machine: str
    device: str = "cpu"
    dtype: str | None = None
    seconds: Seconds | None = None
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
        path = user_path(path)
        if not path.is_file():
            raise ShortLMError(f"{path}: no such file; a {cls.__name__} file (JSON) is needed")
        raw = read_bytes(path, ShortLMError, MOST_BYTES)
        refuse_crowded(raw, str(path), ShortLMError, most=MOST_VALUES)
        if raw.count(b'":') > MOST_KEYS:  # each unknown one would be told, in gigabytes
            raise ShortLMError(f"{path}: has more than {MOST_KEYS:,} keys; is this a {cls.__name__} file?")
        try:
            found = cls.model_validate_json(raw)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where, why = shortened(".".join(map(str, first["loc"])), 100), shortened(first["msg"], 300)
            raise ShortLMError(f"{path}: is not a {cls.__name__} file: {where or 'the file'}: {why}") from error
        if (wild := _wild(found.model_dump())) is not None:
            where = shortened(".".join(map(str, wild)), 100)
            raise ShortLMError(f"{path}: is not a {cls.__name__} file: {where}: is NaN, infinite or too large")
        return found


def _wild(value: Any, most: float = MOST) -> list[Any] | None:
    """Where the first number is that no sum or square can take; while an artifact is made, errors name the block."""
    if isinstance(value, (int, float)):
        return None if -most <= value <= most else []
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    for key, part in parts:  # published scores hold the largest number that there is
        if (found := _wild(part, sys.float_info.max if key == "scores" else most)) is not None:
            return [key, *found]
    return None


def provenance(
    device: str = "cpu", dtype: str | None = None, seconds: float | None = None, key: str | None = None
) -> Provenance:
    """The present machine, moment and library versions."""
    names = ["shortlm", "torch", "transformers", "tokenizers", "safetensors", "numpy", "datasets", "lm_eval", "vllm"]
    versions = {"python": platform.python_version()} | {n: v for n in names if (v := installed_version(n))}
    created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    machine = f"{platform.system()} {platform.machine()}, {_cores()} cores"
    return Provenance(
        created=created, versions=versions, machine=machine, device=device, dtype=dtype, seconds=seconds, key=key
    )


def installed_version(package: str) -> str | None:
    """Of a package, if it is here."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
