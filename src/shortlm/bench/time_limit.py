"""A time for the whole bench: every part that is still to come gets an equal share of what is left.

A part that has begun is not broken off within a round, and keeps the rounds that an interval needs; so the time can be
overdrawn a little, at the cost of later parts, which are left out once it is spent.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

ENOUGH = 6  # rounds: the fewest whose order statistics give a 95 % interval (report/speed.py)


def now() -> float:
    """Seconds on a clock that never goes back."""
    return time.monotonic()


class TimeLimit:
    """So many minutes from now on for so many parts; without minutes, all the time there is."""

    def __init__(self, minutes: float | None, parts: int):
        self.minutes, self.parts = minutes, parts
        self.end = math.inf if minutes is None else now() + 60 * minutes

    @property
    def spent(self) -> bool:
        """Whether no time is left."""
        return now() >= self.end

    @property
    def reason(self) -> str:
        """Why something was left out."""
        return f"the time was up (--minutes {self.minutes:g})" if self.minutes is not None else ""

    def begin(self) -> bool:
        """Whether there is time for the next part."""
        self.parts -= 1
        return not self.spent

    def rounds_until(self, least: int) -> Callable[[int], bool]:
        """For the part that begins now: whether it ends before a round, once it has had `least` of them."""
        start = now()
        share = start + max(self.end - start, 0.0) / (max(self.parts, 0) + 1)
        return lambda rounds: rounds >= least and now() >= share
