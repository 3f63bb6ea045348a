"""Progress bars for long work; silent when the output is not a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def track(items: Iterable[Any] | None = None, what: str = "", total: int | None = None) -> tqdm:
    """A tqdm bar on standard error, shown only on a terminal (`disable=None`)."""
    return tqdm(items, desc=what, total=total, disable=None, leave=False, dynamic_ncols=True)
