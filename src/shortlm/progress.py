"""Progress bars for long work: on a terminal only, and in the first process of a job only."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def is_main() -> bool:
    """Whether this process speaks and writes: rank 0 of those that torchrun started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def track(items: Iterable[Any] | None = None, what: str = "", total: int | None = None) -> tqdm:
    """A tqdm bar on standard error, shown only on a terminal (`disable=None`)."""
    return tqdm(items, desc=what, total=total, disable=None if is_main() else True, leave=False, dynamic_ncols=True)
