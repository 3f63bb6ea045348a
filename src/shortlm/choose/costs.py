"""What units cost in the KV cache or in decoding time: budgets that the parameter counts don't tell."""

from __future__ import annotations

from shortlm.choose.budget import Cost
from shortlm.model import OpenModel, cache_sizes, open_config
from shortlm.recipe import ModelSettings
from shortlm.sweep import decode_latencies
from shortlm.units import FFN


def cache_cost(model: ModelSettings) -> Cost:
    """Numbers in the KV cache per token; an FFN has none. Raises PlanError for a model without such a cache."""
    sizes = cache_sizes(open_config(model), model.trust_remote_code)
    return lambda unit: 0.0 if unit.part == FFN else float(sizes[unit.block])


def latency_cost(opened: OpenModel) -> Cost:
    """Share of the time of a decoding step at batch 1, measured here and now."""
    measured = decode_latencies(opened)
    return lambda unit: measured.of(unit) / measured.total
