"""Moments on a device's own timeline: events on CUDA, which don't hold the work up; elsewhere the clock on the wall."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import nn

Span = tuple[Any, Any]  # start and end


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


class Moments:
    """A stopping criterion that never stops: it notes when each token is there."""

    def __init__(self, device: torch.device):
        self.device = device
        self.moments: list[Any] = []

    def __call__(self, ids_BT: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        """What `generate` asks after every token."""
        self.moments.append(mark(self.device))
        return torch.zeros(len(ids_BT), dtype=torch.bool, device=ids_BT.device)

    def steps(self) -> list[float]:
        """Seconds of every step after the first token, after `wait`."""
        return [seconds(*pair) for pair in pairwise(self.moments)]


@contextmanager
def timed(modules: Sequence[nn.Module], device: torch.device) -> Generator[list[list[Span]], None, None]:
    """Inside, every call of each module is noted, in the order of `modules`."""
    found: list[list[Span]] = [[] for _ in modules]
    starts: list[Any] = []

    def begin(*_: Any) -> None:
        starts.append(mark(device))

    def end(k: int, *_: Any) -> None:
        found[k].append((starts.pop(), mark(device)))

    hooks = [module.register_forward_pre_hook(begin) for module in modules]
    hooks += [module.register_forward_hook(partial(end, k)) for k, module in enumerate(modules)]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
