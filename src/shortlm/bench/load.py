"""Whether other processes keep the cores busy, in which case times are longer and noisier than they would be."""

from __future__ import annotations

import os
import time
from typing import Any

import psutil

WATCHED = 0.3  # seconds


def busy_cores(seconds: float = WATCHED) -> tuple[float, int]:
    """How many of our cores others keep busy just now, and how many we have. Our own process doesn't count."""
    cores, before = _cores(), _times()
    time.sleep(seconds)
    after = _times()
    passed, others = (after[i] - before[i] for i in (0, 1))
    return round(max(0.0, others / passed * len(cores)) if passed > 0 else 0.0, 2), len(cores)


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(psutil.cpu_count() or 1))


def _times() -> tuple[float, float]:
    """Seconds of all our cores since the machine started, and those in which others computed."""
    each: list[Any] = psutil.cpu_times(percpu=True)
    mine, ours = [each[i] for i in _cores() if i < len(each)], psutil.Process().cpu_times()
    total = sum(sum(t) - getattr(t, "guest", 0.0) - getattr(t, "guest_nice", 0.0) for t in mine)
    idle = sum(t.idle + getattr(t, "iowait", 0.0) for t in mine)
    return total, total - idle - ours.user - ours.system
