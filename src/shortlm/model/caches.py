"""The cache that decoding keeps, under whatever name a model's forward and output have for it."""

from __future__ import annotations

import inspect
from typing import Any

# Since transformers 5.24 `cache`; before, by the kind of model. The older names go with 5.40.
NAMES = ("cache", "past_key_values", "cache_params", "state")


def cache_name(model: Any) -> str:
    """The argument of its forward that takes the cache, and the key of its output that holds it."""
    known = inspect.signature(model.forward).parameters
    return next((name for name in NAMES if name in known), "past_key_values")


def cache_of(output: Any) -> Any:
    """The cache in what a forward or `generate` returns; None if there is none."""
    held = dict(output) if isinstance(output, dict) else vars(output) if output is not None else {}
    return next((held[name] for name in NAMES if held.get(name) is not None), None)
