"""How much a token takes in the KV cache of every block, found by the model's own code on shapes alone."""

from __future__ import annotations

from typing import Any

import torch

from shortlm.errors import PlanError
from shortlm.model.anatomy import block_count
from shortlm.model.caches import cache_of
from shortlm.model.guard import meta_model
from shortlm.model.language import text_config


def cache_sizes(config: Any, trust_remote_code: bool = False) -> list[int]:
    """Numbers (keys and values) per token and block. Raises PlanError if the cache is another."""
    tokens, n_blocks = 2, block_count(config)
    model: Any = meta_model(config, trust_remote_code).to(torch.bfloat16)  # for which experts have a shape function
    ids_BT = torch.zeros(1, tokens, dtype=torch.long, device="meta")
    try:
        with torch.no_grad():
            cache = cache_of(model(input_ids=ids_BT, use_cache=True))
        sizes = [(layer.keys.numel() + layer.values.numel()) // tokens for layer in cache.layers]
    except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError):
        sizes = _by_config(config)
    if len(sizes) != n_blocks:
        raise PlanError(
            f"--drop-kv: the cache of {config.model_type} is none of keys and values for every block; "
            "give another budget (--drop, --drop-params)"
        )
    return sizes


def _by_config(config: Any) -> list[int]:
    """Where the code needs more than shapes."""
    text = text_config(config)
    heads = getattr(text, "num_key_value_heads", None) or getattr(text, "num_attention_heads", None)
    width = getattr(text, "head_dim", None) or (heads and text.hidden_size // text.num_attention_heads)
    return [2 * heads * width] * block_count(config) if heads and width else []
