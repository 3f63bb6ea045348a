"""Bytes: of weights, of the KV cache, and the most that are alive at one time.

On CUDA the peak is what torch's allocator says; elsewhere the bytes of all tensors alive are added up, operation by
operation, in a run that isn't timed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from shortlm.model import cache_of
from shortlm.sweep import LiveBytes


def weight_bytes(model: nn.Module) -> int:
    """Of parameters and buffers; what is shared counts once."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}.values())


def bytes_of_cache(out: Any) -> int | None:
    """Of all tensors in the cache that a run leaves; None if it has none that can be looked into."""
    layers = getattr(cache_of(out), "layers", None)
    tensors = [t for layer in layers or () for value in vars(layer).values() for t in _tensors(value)]
    return sum(t.numel() * t.element_size() for t in tensors) if tensors else None


def _tensors(value: Any) -> list[torch.Tensor]:
    """A tensor, or those in a dictionary or list (states of linear attention)."""
    if isinstance(value, torch.Tensor):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [t for item in inner for t in _tensors(item)]


class Peak:
    """Within it, the most bytes alive: this model's weights and all that is made. Others' weights don't count.

    With a `budget`, going beyond it raises torch.OutOfMemoryError wherever they are added up.
    """

    def __init__(self, model: nn.Module, device: torch.device, weights: int, budget: int | None = None):
        self.device, self.weights, self.bytes, self.before = device, weights, 0, 0
        self.live = _Capped(model, weights, budget) if device.type != "cuda" else None

    def __enter__(self) -> Peak:
        if self.live is not None:
            self.live.__enter__()
        else:
            torch.cuda.reset_peak_memory_stats(self.device)
            self.before = torch.cuda.memory_allocated(self.device)
        return self

    def __exit__(self, *error: Any) -> None:
        if self.live is not None:
            self.live.__exit__(*error)
            self.bytes = self.weights + self.live.peak
        else:
            self.bytes = self.weights + torch.cuda.max_memory_allocated(self.device) - self.before


class _Capped(LiveBytes):
    """Bytes alive, up to a budget."""

    def __init__(self, model: nn.Module, weights: int, budget: int | None):
        super().__init__(model)
        self.weights, self.budget = weights, budget

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = super().__torch_dispatch__(func, types, args, kwargs)
        if self.budget is not None and self.weights + self.peak > self.budget:
            raise torch.OutOfMemoryError(f"{self.weights + self.peak} bytes are more than the budget of {self.budget}")
        return out
