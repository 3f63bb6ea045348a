"""The form of every artifact: JSON, unknown keys refused, with the provenance of model, data, machine and moment."""

from __future__ import annotations

import math
import os
import platform
import sys
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from shortlm.documents import read_bytes
from shortlm.errors import ShortLMError, shortened
from shortlm.outputs import write_text
from shortlm.paths import user_path

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
        path = user_path(path)
        if not path.is_file():
            raise ShortLMError(f"{path}: no such file; a {cls.__name__} file (JSON) is needed")
        raw = read_bytes(path, ShortLMError)
        try:
            found = cls.model_validate_json(raw)
        except ValidationError as error:
            first = error.errors()[0]
            where = shortened(".".join(map(str, first["loc"])), 100) or "the file"
            raise ShortLMError(f"{path}: is not a {cls.__name__} file: {where}: {first['msg']}") from error
        if not _finite(found.model_dump()):
            raise ShortLMError(f"{path}: is not a {cls.__name__} file: a number in it is NaN or infinite")
        return found


def _finite(value: Any) -> bool:
    """Whether no number in it is NaN or infinite; while an artifact is made, errors name the block instead."""
    if isinstance(value, float):
        return math.isfinite(value)
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return all(map(_finite, parts))


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


def kept(kind: type[A], path: Path, key: str) -> A | None:
    """The artifact that is there, if it was made with the same key (settings and inputs)."""
    try:
        found = kind.load(path)
    except ShortLMError:
        return None
    return found if getattr(found, "provenance", None) and vars(found)["provenance"].key == key else None
