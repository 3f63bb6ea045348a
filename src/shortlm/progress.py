"""Progress bars for long work: on a terminal only, and in the first process of a job only."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from tqdm import tqdm


def is_main() -> bool:
    """Whether this process speaks and writes: rank 0 of those that torchrun started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def ask_to_stop(*_: object) -> None:
    """A signal handler: raises KeyboardInterrupt now, and once more at the next step of a bar.

    Python loses an exception that comes while certain callbacks run (of imports, of the collector); work would go on.
    """
    Bar.stopping = True
    raise KeyboardInterrupt


def unraisable(lost: sys.UnraisableHookArgs) -> None:
    """A `sys.unraisablehook`: says nothing of an interrupt that is remembered, and the usual of everything else."""
    if not (Bar.stopping and lost.exc_type is KeyboardInterrupt):
        sys.__unraisablehook__(lost)


class Bar(tqdm):
    """A tqdm bar that ends the work if it was asked to stop."""

    stopping = False

    def __iter__(self) -> Iterator[Any]:
        """The items."""
        for item in super().__iter__():
            self._stop_if_asked()
            yield item

    def update(self, n: float | None = 1) -> bool | None:
        """So many more are done."""
        self._stop_if_asked()
        return super().update(n)

    def _stop_if_asked(self) -> None:
        if Bar.stopping:
            Bar.stopping = False
            raise KeyboardInterrupt


def track(items: Iterable[Any] | None = None, what: str = "", total: int | None = None) -> Bar:
    """A bar on standard error, shown only on a terminal (`disable=None`)."""
    seen = is_main() and sys.stderr is not None  # closed by `2>&-`
    return Bar(items, desc=what, total=total, disable=None if seen else True, leave=False, dynamic_ncols=True)
