"""What was computed for a tensor: checked against what its header says, and appended part by part.

A result on an accelerator, or one that lies transposed in memory, is brought into order a part at a time: beside the
result itself there are a few MiB.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from shortlm.checkpoint.copying import append
from shortlm.checkpoint.headers import BITS
from shortlm.errors import ModelError

BUFFER = 2**20
TYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2", "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint64": "U64",
    "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
# A number whose bits of these are all set is NaN or infinite (float8_e4m3fn has NaN alone).
NOT_FINITE = {"F64": 0x7FF0 << 48, "F32": 0x7F80 << 16, "BF16": 0x7F80, "F16": 0x7C00, "F8_E5M2": 0x7C, "F8_E4M3": 0x7F}


def write_array(value: Any, name: str, dtype: str, shape: tuple[int, ...], target: BinaryIO) -> None:
    """Append a torch tensor or NumPy array. Raises ModelError if it isn't of this type and shape, or not finite."""
    found = str(getattr(value, "dtype", type(value).__name__)).removeprefix("torch.")
    found, size = TYPES.get(found, found), tuple(getattr(value, "shape", ()))
    if (found, size) != (dtype, shape):
        raise ModelError(
            f"{name}: {found} {list(size)} was computed for it, {dtype} {list(shape)} was announced; "
            "nothing was written; please report this"
        )
    done = 0
    for part in _parts(value):
        _refuse_not_finite(part, name, dtype, shape, done)
        append(part, target)
        done += len(part)


def _parts(value: Any) -> Iterator[np.ndarray]:
    """Its bytes in row-major order, some rows at a time."""
    value = value if value.ndim else value.reshape(1)
    row = value.nbytes // max(1, len(value))
    if row > BUFFER and value.ndim > 1:
        for inner in value:
            yield from _parts(inner)
        return
    step = max(1, BUFFER // max(1, row))
    for start in range(0, len(value), step):
        yield _bytes(value[start : start + step])


def _bytes(part: Any) -> np.ndarray:
    if not isinstance(part, np.ndarray):
        import torch  # who computed a tensor has imported it

        part = part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return np.ascontiguousarray(part).reshape(-1).view(np.uint8)


def _refuse_not_finite(part: np.ndarray, name: str, dtype: str, shape: tuple[int, ...], done: int) -> None:
    """`done`: bytes of the tensor before this part."""
    if dtype not in NOT_FINITE:
        return
    mask, width = NOT_FINITE[dtype], BITS[dtype] // 8
    bits = part.view(f"u{width}")
    wild = (bits & bits.dtype.type(mask)) == mask
    if wild.any():
        place = np.unravel_index(done // width + int(wild.argmax()), shape) if shape else ()
        raise ModelError(
            f"{name}: NaN or infinity was computed for it (first at {[int(i) for i in place]}, as {dtype}); "
            "nothing was written; compute it in a wider type or with other settings"
        )
