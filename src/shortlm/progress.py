"""Progress of long work, in one style: bars on a terminal, a line a minute elsewhere, in the first process alone."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

from tqdm import tqdm

STYLE = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}, {remaining} left{postfix}]"
EVERY = 60.0  # seconds between the lines that stand for bars where there is no terminal


def is_main() -> bool:
    """Whether this process speaks and writes: rank 0 of those that torchrun started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def be_quiet(quiet: bool) -> None:
    """Whether nothing is to be seen of progress, downloads of libraries that are not imported yet included."""
    Bar.quiet = quiet
    if quiet:
        os.environ |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}


def is_quiet() -> bool:
    """Whether nothing is to be seen of progress: asked for, no first process, or closed by `2>&-`."""
    return Bar.quiet or not is_main() or sys.stderr is None


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
    """A tqdm bar that ends the work if it was asked to stop, and without a terminal says a line now and then."""

    stopping = False
    quiet = False
    told = 0.0  # when a bar of this process last said a line, or the first one began

    def __init__(self, items: Iterable[Any] | None = None, what: str = "", **options: Any):
        super().__init__(items, desc=what, bar_format=STYLE, leave=False, dynamic_ncols=True, **options)
        self.what = what
        self._began, self._done, self._first = time.monotonic(), 0.0, 0.0
        Bar.told = Bar.told or self._began

    def __iter__(self) -> Iterator[Any]:
        """The items."""
        for item in super().__iter__():
            self._stop_if_asked()
            yield item
            self._count(1)

    def update(self, n: float | None = 1) -> bool | None:
        """So many more are done."""
        self._stop_if_asked()
        self._count(n or 0)
        return super().update(n)

    def begin_at(self, done: float) -> None:
        """So many were done before, which says nothing of how long the rest takes."""
        self._first = self._done = self.initial = self.n = done

    def move_to(self, done: float) -> None:
        """So many are done in all."""
        self.update(done - self._done)

    def _stop_if_asked(self) -> None:
        if Bar.stopping:
            Bar.stopping = False
            raise KeyboardInterrupt

    def _count(self, more: float) -> None:
        self._done += more
        now = time.monotonic()
        if self.disable and now - Bar.told >= EVERY and not is_quiet():
            Bar.told = now
            print(self._line(now - self._began), file=sys.stderr, flush=True)

    def _line(self, seconds: float) -> str:
        """As 'sweep: 40%, 02:10, 03:15 left'."""
        spent, made = tqdm.format_interval(seconds), self._done - self._first
        if not self.total or made <= 0:
            return f"{self.what}: {spent}"
        left = tqdm.format_interval(max(0.0, seconds * (self.total - self._done) / made))
        return f"{self.what}: {self._done / self.total:.0%}, {spent}, {left} left"


def track(items: Iterable[Any] | None = None, what: str = "", total: float | None = None) -> Bar:
    """A bar on standard error, shown only on a terminal (`disable=None`); else lines, one a minute."""
    return Bar(items, what, total=total, disable=True if is_quiet() else None, unit_scale=(total or 0) >= 1e6)
