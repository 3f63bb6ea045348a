"""Read tensors, or some rows of one, from their shards into memory of their own.

Plain reads, no memory maps: the pages of a map would count as resident for as long as the map lives.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from io import FileIO
from math import prod
from pathlib import Path

import torch

from shortlm.checkpoint import TensorEntry
from shortlm.errors import ModelError

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
Tensors = dict[str, torch.Tensor]


def read_tensors(entries: Mapping[str, TensorEntry]) -> Tensors:
    """The tensors by their names. Raises ModelError if a shard has disappeared or is cut short meanwhile."""
    tensors = {}
    for name, entry in _in_order(entries):
        raw = torch.empty(entry.nbytes, dtype=torch.uint8)
        _read(raw, entry)
        tensors[name] = raw.view(dtype_of(entry)).view(entry.shape)
    return tensors


class Buffer:
    """Memory that one set of tensors after the other is read into: what is freed piecemeal may never be given back.

    `dtypes` are the types wanted; `pin` takes page-locked memory, from which an accelerator copies faster.
    """

    def __init__(
        self, sets: list[dict[str, TensorEntry]], dtypes: Callable[[str, torch.dtype], torch.dtype], pin: bool
    ):
        self.dtypes = dtypes
        self.raw = torch.empty(max(map(self._size, sets)), dtype=torch.uint8, pin_memory=pin)
        other = [e.nbytes for entries in sets for n, e in entries.items() if dtypes(n, dtype_of(e)) != dtype_of(e)]
        self.staging = torch.empty(max(other, default=0), dtype=torch.uint8)

    def read(self, entries: dict[str, TensorEntry]) -> Tensors:
        """The tensors, in this memory. Raises ModelError as `read_tensors` does."""
        tensors, offset = {}, 0
        for name, entry in _in_order(entries):
            stored, wanted = dtype_of(entry), self.dtypes(name, dtype_of(entry))
            size = prod(entry.shape) * wanted.itemsize
            # a storage of its own: forward-mode differentiation makes tangents as large as a tensor's storage
            raw = torch.from_numpy(self.raw.numpy()[offset : offset + size])
            tensors[name] = raw.view(wanted).view(entry.shape)
            if wanted == stored:
                _read(raw, entry)
            else:
                _read(self.staging[: entry.nbytes], entry)
                tensors[name].copy_(self.staging[: entry.nbytes].view(stored).view(entry.shape))
            offset += _aligned(raw.numel())
        return tensors

    def _size(self, entries: dict[str, TensorEntry]) -> int:
        return sum(_aligned(prod(e.shape) * self.dtypes(n, dtype_of(e)).itemsize) for n, e in entries.items())


def _aligned(size: int) -> int:
    return -(-size // 64) * 64


def _in_order(entries: Mapping[str, TensorEntry]) -> list[tuple[str, TensorEntry]]:
    return sorted(entries.items(), key=lambda item: (item[1].file, item[1].begin))


def _read(target: torch.Tensor, entry: TensorEntry) -> None:
    with _opened(entry.file) as file:
        _fill(memoryview(target.numpy()), file, entry, entry.begin)


def read_rows(entry: TensorEntry, rows: list[int]) -> torch.Tensor:
    """Some rows of a matrix, in the order given. Raises ModelError as `read_tensors` does."""
    if rows and not 0 <= min(rows) <= max(rows) < entry.shape[0]:
        raise ModelError(f"{entry.file}: '{entry.name}' has {entry.shape[0]} rows, and row {max(rows)} is asked for")
    width = entry.nbytes // entry.shape[0]
    raw = torch.empty(len(rows), width, dtype=torch.uint8)
    with _opened(entry.file) as file:
        for target, row in zip(raw, rows, strict=True):
            _fill(memoryview(target.numpy()), file, entry, entry.begin + row * width)
    return raw.view(dtype_of(entry)).view(len(rows), *entry.shape[1:])


def read_some(path: Path, limit: int) -> int:
    """Read up to `limit` bytes of a file and forget them; returns how many. For measuring the disk."""
    buffer, done = memoryview(bytearray(2**24)), 0
    with _opened(path) as file:
        while done < limit and (count := file.readinto(buffer)):
            done += count
    return done


def dtype_of(entry: TensorEntry) -> torch.dtype:
    """The torch type of a stored tensor. Raises ModelError for types that torch doesn't compute in."""
    if entry.dtype not in DTYPES:
        raise ModelError(f"{entry.file}: '{entry.name}' is of type {entry.dtype}, which can't be streamed")
    return DTYPES[entry.dtype]


@contextmanager
def _opened(path: Path) -> Generator[FileIO, None, None]:
    try:
        with FileIO(path) as file:
            yield file
    except FileNotFoundError as error:
        raise ModelError(f"{path}: shard has disappeared while it was needed; put it back and try again") from error


def _fill(target: memoryview, file: FileIO, entry: TensorEntry, begin: int) -> None:
    file.seek(begin)
    done = 0
    while done < len(target):
        count = file.readinto(target[done:])
        if not count:
            raise ModelError(f"{entry.file}: shard ended while '{entry.name}' was read; was it changed meanwhile?")
        done += count
