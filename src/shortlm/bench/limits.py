"""The largest batch and the longest output that fit, found by bisection with out-of-memory caught.

Fewer blocks mean a smaller KV cache, so this is what a shorter model buys where memory is small. Nothing is decoded to
find out: the prompt is read, its cache is stretched to the full length, and one more token is written, which is when
most is alive.

Shapes: B sequences, T tokens.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from shortlm.artifacts import Limit
from shortlm.bench.cases import Case
from shortlm.bench.memory import Peak
from shortlm.bench.runners import Runner
from shortlm.errors import ModelError, RecipeError, is_out_of_memory
from shortlm.model import cache_name, cache_of, quiet
from shortlm.sizes import byte_size


def limits(runner: Runner, case: Case, largest: int) -> list[Limit]:
    """The largest batch for the case's lengths, and the longest output for its batch."""
    budget, context = budget_of(runner.opened.memory, runner.device), runner.opened.context

    def batch_fits(batch: int) -> int | None:
        return peak_of(runner, replace(case, batch=batch), budget)

    def output_fits(output: int) -> int | None:
        return peak_of(runner, replace(case, output_tokens=output), budget)

    batch, batch_peak = largest_that_fits(batch_fits, largest)
    longest = context - case.prompt_tokens if context else largest
    output, output_peak = largest_that_fits(output_fits, longest)
    facts: dict[str, Any] = {"role": runner.role, "prompt_tokens": case.prompt_tokens, "budget_bytes": budget}
    return [
        Limit(kind="batch", batch=batch, output_tokens=case.output_tokens, value=batch, peak_bytes=batch_peak,
              stopped_by="cap" if batch == largest else "memory", **facts),
        Limit(kind="output", batch=case.batch, output_tokens=output, value=output, peak_bytes=output_peak,
              stopped_by=("context" if context else "cap") if output == longest else "memory", **facts),
    ]  # fmt: skip


def budget_of(memory: str | None, device: torch.device) -> int:
    """--memory, or all of an accelerator's. Raises RecipeError on a CPU without one, which would swap for hours."""
    if memory is not None:
        return byte_size(memory)
    if device.type != "cuda":
        raise RecipeError("--limits: give the budget with --memory, e.g. 2GiB; this device doesn't say when it is full")
    return torch.cuda.get_device_properties(device).total_memory


def largest_that_fits(fits: Callable[[int], int | None], most: int) -> tuple[int, int | None]:
    """The largest number from 1 to `most` that fits, and its peak; 0 if not even 1 does. `fits` gives peaks or None."""
    peaks = {0: None}
    low, high = 0, 1
    while high <= most and (peak := fits(high)) is not None:
        peaks[high] = peak
        low, high = high, min(2 * high, most) if high < most else most + 1
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        peaks[middle] = fits(middle)
        low, high = (middle, high) if peaks[middle] is not None else (low, middle)
    return low, peaks[low]


def peak_of(runner: Runner, case: Case, budget: int) -> int | None:
    """Most bytes alive in a case; None if that is more than the budget, or than there is."""
    reading = replace(case, output_tokens=1)
    try:
        with Peak(runner.model, runner.device, runner.weights, budget) as peak, torch.no_grad(), quiet():
            out = runner.run(runner.prompt(reading), reading)
            if case.output_tokens > 1:
                length = case.prompt_tokens + case.output_tokens - 2  # what the last step finds in the cache
                _last_step(runner.model, cache_of(out), out.sequences[:, -1:], length)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return None
    finally:
        out = None
        gc.collect()
        if runner.device.type == "cuda":
            torch.cuda.empty_cache()
    return peak.bytes if peak.bytes <= budget else None


def _last_step(model: Any, cache: Any, ids_B1: torch.Tensor, length: int) -> None:
    """One decoding step behind `length` tokens in the cache, whose values don't matter.

    A layer that slides keeps its window alone. Raises ModelError for a cache that can't be looked into.
    """
    if not getattr(cache, "layers", None):
        raise ModelError(f"--limits: the cache of {type(model).__name__} has no layers that could be stretched")
    for layer in cache.layers:
        kept = length
        if getattr(layer, "is_sliding", False):
            kept, layer.cumulative_length = min(length, layer.sliding_window - 1), length
        for name in ("keys", "values"):
            tensor = getattr(layer, name, None)
            if isinstance(tensor, torch.Tensor) and tensor.dim() == 4:
                B, H, _, D = tensor.shape
                setattr(layer, name, tensor.new_zeros(B, H, kept, D))
                del tensor
    model(input_ids=ids_B1, use_cache=True, **{cache_name(model): cache})
