"""Moments on a device's own timeline: events on CUDA, which don't hold the work up; elsewhere the clock on the wall."""

from __future__ import annotations

import time
from typing import Any

import torch


def mark(device: torch.device) -> Any:
    """The moment at which the work given so far is done."""
    if device.type == "cuda":
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(device))
        return event
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


def seconds(start: Any, end: Any) -> float:
    """Between two moments, after `wait`."""
    return start.elapsed_time(end) / 1000 if hasattr(start, "elapsed_time") else end - start


def wait(device: torch.device) -> None:
    """Until the device has done all that was given to it."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def device_name(device: torch.device) -> str:
    """What stands on the chip."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    return _cpu_name()


def _cpu_name() -> str:
    import platform
    from contextlib import suppress

    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
