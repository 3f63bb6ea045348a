"""Safetensors headers: which tensor lies at which bytes of a file. 8 bytes of length, then JSON; no weights are read.

All that a header says is checked here, since the bytes that it names are copied as they are: types, shapes, and that
the tensors lie one behind the other without holes or overlaps, as the format wants it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from shortlm.documents import parse_json
from shortlm.errors import ModelError, shown

BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8}
BITS |= {"I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32}
BITS |= {"I64": 64, "U64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}
MOST_HEADER = 32 * 2**20  # the format allows 100 MiB, which take gigabytes to parse; 32 are some 300,000 tensors
MOST_DIMENSIONS = 64  # as in torch
AGAIN = "; download it again"


@dataclass(frozen=True)
class TensorEntry:
    """One tensor: `nbytes` bytes from `begin` (absolute) in `file`."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    nbytes: int


def nbytes_of(dtype: str, shape: Sequence[int]) -> int:
    """Bytes of a tensor, by its type as safetensors names it; types of less than a byte are packed."""
    return (BITS[dtype] * prod(shape) + 7) // 8


def read_header(path: Path) -> dict[str, TensorEntry]:
    """The tensors of one safetensors file. Raises ModelError if it is missing, cut short or damaged."""
    if not path.is_file():
        raise ModelError(f"{path}: shard is missing; download it again")
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > size - 8:
            raise ModelError(f"{path}: shard is cut short or damaged (no whole header in {size} bytes){AGAIN}")
        if length > MOST_HEADER:
            raise ModelError(
                f"{path}: its header has {length:,} bytes, at most {MOST_HEADER:,} are read; save it in several shards"
            )
        header = _parsed(path, file.read(length))
    entries = {name: _entry(path, name, facts, 8 + length) for name, facts in header.items()}
    _refuse_gaps(path, entries, 8 + length, size)
    return entries


def _parsed(path: Path, raw: bytes) -> dict[str, Any]:
    header = parse_json(raw, f"{path}: shard is damaged, its header", ModelError, AGAIN, unique=True)
    if not isinstance(header, dict):
        raise ModelError(f"{path}: shard is damaged (its header is a {type(header).__name__}, no mapping){AGAIN}")
    said = header.pop("__metadata__", None)
    said = {} if said is None else said
    if not (isinstance(said, dict) and all(isinstance(value, str) for value in said.values())):
        raise ModelError(f"{path}: shard is damaged (__metadata__ of its header is no mapping of texts){AGAIN}")
    return header


def _entry(path: Path, name: str, facts: Any, base: int) -> TensorEntry:
    if not (isinstance(facts, dict) and facts.keys() == {"dtype", "shape", "data_offsets"}):
        raise ModelError(f"{path}: shard is damaged (entry {shown(name)} of its header){AGAIN}")
    dtype, shape, offsets = facts["dtype"], facts["shape"], facts["data_offsets"]
    known = isinstance(dtype, str) and dtype in BITS
    if not (known and _counts(shape, MOST_DIMENSIONS) and _counts(offsets, 2) and len(offsets) == 2):
        raise ModelError(f"{path}: shard is damaged (entry {shown(name)} of its header: {shown(facts)}){AGAIN}")
    nbytes = offsets[1] - offsets[0]
    if nbytes != nbytes_of(dtype, shape):
        raise ModelError(
            f"{path}: shard is damaged ({shown(name)}: {nbytes:,} bytes for {dtype} {shown(shape)}){AGAIN}"
        )
    return TensorEntry(name, path, dtype, tuple(shape), base + offsets[0], nbytes)


def _counts(values: Any, most: int) -> bool:
    """Whether it is a short list of plain numbers from 0 to 2^63."""
    short = isinstance(values, list) and len(values) <= most
    return short and all(type(value) is int and 0 <= value < 2**63 for value in values)


def _refuse_gaps(path: Path, entries: dict[str, TensorEntry], base: int, size: int) -> None:
    """The tensors, in whatever order they are named, must fill the file from the header to its end."""
    end = max((e.begin + e.nbytes for e in entries.values()), default=base)
    if end != size:
        what = "cut short" if end > size else "damaged"
        raise ModelError(f"{path}: shard is {what} ({size} bytes, its header tells of {end}){AGAIN}")
    reached = base
    for entry in sorted(entries.values(), key=lambda e: (e.begin, e.nbytes)):
        if entry.begin != reached:
            what = "overlaps another tensor" if entry.begin < reached else "leaves a hole before it"
            raise ModelError(f"{path}: shard is damaged ({shown(entry.name)} {what}){AGAIN}")
        reached += entry.nbytes
