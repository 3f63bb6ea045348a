"""Sizes as people write them: '6GiB', '500MB', and back."""

from __future__ import annotations

import re

UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def byte_size(text: str) -> int:
    """Bytes. Raises ValueError if `text` is no size."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)\s*", text.lower())
    if not match or match[2] not in UNITS or float(match[1]) <= 0:
        raise ValueError("a size is needed, e.g. 5GB or 500MiB")
    return int(float(match[1]) * UNITS[match[2]])


def gib(size: float) -> str:
    """As '1.53 GiB', or MiB below one tenth of that."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 / 10 else f"{size / 2**20:.1f} MiB"
