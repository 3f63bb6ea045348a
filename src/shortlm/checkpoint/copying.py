"""Bytes of a stored tensor, from file to file: within the kernel where the system can, nothing is decoded."""

from __future__ import annotations

import errno
import os
from typing import Any, BinaryIO

from shortlm.checkpoint.headers import TensorEntry
from shortlm.errors import ModelError, shown

BUFFER = 2**20
CHUNK = 256 * 2**20  # so that Ctrl-C is heard
NO_KERNEL_COPY = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ETXTBSY, errno.EPERM}


def copy_bytes(entry: TensorEntry, target: BinaryIO) -> None:
    """Append the tensor's bytes to `target`. Raises ModelError if its file ends too soon."""
    with entry.file.open("rb", buffering=0) as source:
        begin, left = entry.begin, entry.nbytes
        while left:
            count = _copy_some(source, begin, target, min(left, CHUNK))
            if not count:
                raise ended(entry)
            begin, left = begin + count, left - count


def _copy_some(source: BinaryIO, begin: int, target: BinaryIO, count: int) -> int:
    """Copy up to `count` bytes; returns how many were copied, 0 at the end of the source."""
    if hasattr(os, "copy_file_range"):
        try:
            return os.copy_file_range(source.fileno(), target.fileno(), count, offset_src=begin)
        except OSError as error:
            if error.errno not in NO_KERNEL_COPY:
                raise
    source.seek(begin)
    return target.write(source.read(min(count, BUFFER)))


def ended(entry: TensorEntry) -> ModelError:
    """The error for a file that has become shorter than its header said."""
    return ModelError(f"{entry.file}: shard ended while {shown(entry.name)} was copied; was it changed meanwhile?")


def append(data: Any, target: BinaryIO) -> None:
    """Write all of a one-dimensional buffer of bytes: one write may take less than it is given."""
    view = memoryview(data)
    while view:
        view = view[target.write(view) :]
