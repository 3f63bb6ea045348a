"""The tensors of a checkpoint that is made from another one: each is a copy, a slice, or computed.

A piece knows its name, type and shape before any weight is read, so that headers, shards and the space on the disk
are known first; its bytes come when its turn comes, and are forgotten when they are written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from shortlm.checkpoint.copying import BUFFER, append, copy_bytes
from shortlm.checkpoint.headers import BITS, TensorEntry, nbytes_of
from shortlm.errors import ModelError, shown


class Piece(Protocol):
    """One tensor of the result."""

    @property
    def name(self) -> str:
        """In the result."""
        ...

    @property
    def dtype(self) -> str:
        """As safetensors names types: F32, BF16, F8_E4M3."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """In elements."""
        ...

    @property
    def nbytes(self) -> int:
        """How many bytes `write` appends."""
        ...

    def write(self, target: BinaryIO) -> None:
        """Append the tensor's bytes to `target`. Raises ModelError if they can't be had."""
        ...


@dataclass(frozen=True)
class _LikeSource:
    """Of a stored tensor's type and shape."""

    name: str
    source: TensorEntry

    @property
    def dtype(self) -> str:
        """The source's."""
        return self.source.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """The source's."""
        return self.source.shape

    @property
    def nbytes(self) -> int:
        """As many as the source has."""
        return self.source.nbytes


@dataclass(frozen=True)
class Copy(_LikeSource):
    """A stored tensor as it is, maybe under another name; its bytes go from file to file within the kernel."""

    def write(self, target: BinaryIO) -> None:
        """Append the source's bytes. Raises ModelError if the source ends too soon."""
        copy_bytes(self.source, target)


@dataclass(frozen=True)
class Slice:
    """Rows, columns, ... of a stored tensor: `kept[axis]` lists the indices that stay along this axis, in their new
    order; axes that it doesn't name stay whole.

    Raises ModelError for an axis or index that the source doesn't have, or a type of less than a byte.
    """

    name: str
    source: TensorEntry
    kept: Mapping[int, Sequence[int]]

    def __post_init__(self) -> None:
        what = f"{self.source.file}: {shown(self.source.name)} of shape {list(self.source.shape)} can't be sliced"
        if BITS[self.dtype] < 8:
            raise ModelError(f"{what} ({self.dtype} packs several values into a byte); convert the checkpoint first")
        for axis, indices in self.kept.items():
            if not 0 <= axis < len(self.source.shape):
                raise ModelError(f"{what}: it has no axis {axis}; this slice is for another")
            most = self.source.shape[axis] - 1
            if (wrong := next((i for i in indices if not 0 <= i <= most), None)) is not None:
                raise ModelError(f"{what}: index {wrong} of axis {axis} is not in 0..{most}; this slice is for another")

    @property
    def dtype(self) -> str:
        """The source's."""
        return self.source.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """What is left of the source's."""
        return tuple(len(self.kept.get(axis, range(count))) for axis, count in enumerate(self.source.shape))

    @property
    def nbytes(self) -> int:
        """Of what is left."""
        return nbytes_of(self.dtype, self.shape)

    def write(self, target: BinaryIO) -> None:
        """Append what is left, in row-major order, with a few MiB of memory. Raises ModelError as Copy does."""
        from shortlm.checkpoint.gathering import gather_bytes  # imports numpy, which copies don't need

        gather_bytes(self.source, self.kept, target)


@dataclass(frozen=True)
class Zeros(_LikeSource):
    """Zeros in place of a stored tensor, of its type and shape: all types have zero as zero bytes."""

    def write(self, target: BinaryIO) -> None:
        """Append them, some at a time."""
        for begin in range(0, self.nbytes, BUFFER):
            append(bytes(min(BUFFER, self.nbytes - begin)), target)


@dataclass(frozen=True)
class Computed:
    """A tensor that `compute` gives when its turn comes: a torch tensor on any device, or a NumPy array.

    Type and shape are said before, since the header stands before the data. The functions of a shard are called in the
    order of its pieces, those of wider types first; none may count on another having been called.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    compute: Callable[[], Any]

    @property
    def nbytes(self) -> int:
        """By type and shape."""
        return nbytes_of(self.dtype, self.shape)

    def write(self, target: BinaryIO) -> None:
        """Compute and append. Raises ModelError for another type or shape than was said, and for NaN or infinity."""
        from shortlm.checkpoint.arrays import write_array  # imports numpy, which copies don't need

        write_array(self.compute(), self.name, self.dtype, self.shape, target)
