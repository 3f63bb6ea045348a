"""Sizes and counts as people write them: '6GiB', '5.5B', and back."""

from __future__ import annotations

import re

UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30}
MOST = 1e18  # more than there is of anything
COUNTS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}


def byte_size(text: str) -> int:
    """Bytes. Raises ValueError if `text` is no size."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)\s*", text.lower())
    size = float(match[1]) * UNITS[match[2]] if match and match[2] in UNITS else 0.0
    if not 1 <= size <= MOST:
        raise ValueError("a size is needed, e.g. 5GB or 500MiB")
    return int(size)


def gib(size: float) -> str:
    """As '1.53 GiB', or MiB below one tenth of that."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 / 10 else f"{size / 2**20:.1f} MiB"


def quantity(text: str) -> int:
    """'5.5B', '780M' or '5524115456'. Raises ValueError if `text` is no number of things."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmbt]?)\s*", text.lower().replace(",", "").replace("_", ""))
    number = float(match[1]) * COUNTS[match[2]] if match else 0.0
    if not 0 < number <= MOST:
        raise ValueError("a number is needed, e.g. 5.5B, 780M or 5524115456")
    return round(number)
