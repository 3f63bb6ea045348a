"""Rows and columns of a stored tensor: read in windows of neighbouring rows, chosen from, appended.

Elements are moved as whole numbers of their width, so every type of one byte or more will do, also those that NumPy
doesn't know (bfloat16, float8). Memory: a few windows of BUFFER bytes, whatever the tensor and the indices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import BinaryIO

import numpy as np

from shortlm.checkpoint.copying import append, ended
from shortlm.checkpoint.headers import BITS, TensorEntry

BUFFER = 2**20
Kept = list[np.ndarray | None]  # per axis: the indices that stay, or None for all


def gather_bytes(entry: TensorEntry, kept: Mapping[int, Sequence[int]], target: BinaryIO) -> None:
    """Append the part of the tensor that `kept` tells (axis: indices). Raises ModelError if its file ends too soon."""
    shape = entry.shape or (1,)
    indices: Kept = [np.asarray(kept[axis], np.int64) if axis in kept else None for axis in range(len(shape))]
    with entry.file.open("rb") as source:
        for part in _parts(source, entry, entry.begin, shape, indices):
            append(part.reshape(-1).view(np.uint8), target)


def _parts(
    source: BinaryIO, entry: TensorEntry, begin: int, shape: tuple[int, ...], kept: Kept
) -> Iterator[np.ndarray]:
    """What stays of the array of this `shape` that begins at byte `begin`, piece by piece."""
    width = BITS[entry.dtype] // 8
    row = prod(shape[1:]) * width
    rows = np.arange(shape[0]) if kept[0] is None else kept[0]
    if row > BUFFER and len(shape) > 1:  # as stacked experts, whose rows are matrices
        for i in rows:
            yield from _parts(source, entry, begin + int(i) * row, shape[1:], kept[1:])
        return
    for window in _windows(rows, max(1, BUFFER // max(1, row))):
        low, high = int(window.min()), int(window.max())
        source.seek(begin + low * row)
        raw = source.read((high - low + 1) * row)
        if len(raw) < (high - low + 1) * row:
            raise ended(entry)
        stored = np.frombuffer(raw, f"u{width}").reshape(high - low + 1, *shape[1:])
        yield _chosen(stored, [window - low, *kept[1:]])


def _chosen(stored: np.ndarray, kept: Kept) -> np.ndarray:
    for axis, indices in enumerate(kept):
        if indices is not None:
            stored = stored.take(indices, axis)
    return stored


def _windows(rows: np.ndarray, most: int) -> Iterator[np.ndarray]:
    """The list cut into runs that each have at most `most` entries and lie within `most` neighbouring rows."""
    start, low, high = 0, 0, 0
    for at, row in enumerate(rows.tolist()):
        low, high = (min(low, row), max(high, row)) if at > start else (row, row)
        if high - low >= most or at - start >= most:
            yield rows[start:at]
            start, low, high = at, row, row
    if len(rows):
        yield rows[start:]
