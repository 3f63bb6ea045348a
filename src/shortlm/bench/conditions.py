"""Under what conditions a bench runs: how busy other processes keep the machine, and how long it may take."""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil

LOOK = 0.5  # seconds
LOADED = 0.2  # share of all cores


def loaded_machine(look: float = LOOK) -> str | None:
    """A warning if other processes keep the cores busy; this one sleeps meanwhile."""
    busy = psutil.cpu_percent(interval=look) / 100
    if busy <= LOADED:
        return None
    return f"other processes kept {busy:.0%} of the cores busy just before; times vary with what they do"


class TimeBudget:
    """So many minutes from now; without a number there is no end."""

    def __init__(self, minutes: float | None, clock: Callable[[], float] = time.perf_counter):
        self._clock, self.minutes = clock, minutes
        self._end = None if minutes is None else clock() + 60 * minutes

    def spent(self) -> bool:
        """Whether it is used up."""
        return self._end is not None and self._clock() >= self._end
