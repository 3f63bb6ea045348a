"""Tiny random models of every architecture, built in the process: 6 blocks, mixed layer types, no download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

BLOCKS = 6
COMMON = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": BLOCKS, "num_attention_heads": 4}
COMMON |= {"max_position_embeddings": 128, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
WIDE = {"intermediate_size": 48}
GROUPED = {"num_key_value_heads": 2}
HEADS = {"head_dim": 8}
MIXED = [
    "sliding_attention",
    "full_attention",
    "full_attention",
    "sliding_attention",
    "full_attention",
    "sliding_attention",
]

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": WIDE | GROUPED,
    "mistral": WIDE | GROUPED | {"sliding_window": 8},
    "qwen2": WIDE | GROUPED | {"use_sliding_window": True, "sliding_window": 8, "layer_types": MIXED},
    "qwen3": WIDE | GROUPED | HEADS | {"use_sliding_window": True, "sliding_window": 8, "layer_types": MIXED},
    "gemma": WIDE | GROUPED | HEADS,
    "gemma2": WIDE | GROUPED | HEADS | {"sliding_window": 8, "layer_types": MIXED, "query_pre_attn_scalar": 8},
    "gemma3_text": WIDE | GROUPED | HEADS | {"sliding_window": 8, "layer_types": MIXED, "query_pre_attn_scalar": 8},
    "phi": WIDE,
    "phi3": WIDE | GROUPED,
    "gpt2": {"n_inner": 48},
    "gpt_neox": WIDE,
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "olmo2": WIDE | GROUPED,
    "falcon": {"ffn_hidden_size": 48},
    "stablelm": WIDE | GROUPED,
    "granite": WIDE | GROUPED | {"residual_multiplier": 0.5, "embedding_multiplier": 2.0, "logits_scaling": 2.0},
    "smollm3": WIDE | GROUPED | {"no_rope_layers": [1, 1, 0, 1, 1, 0]},
    "mixtral": WIDE | GROUPED | {"num_local_experts": 4},
    "qwen3_moe": WIDE
    | GROUPED
    | HEADS
    | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "decoder_sparse_step": 2},
    "gpt_oss": WIDE
    | GROUPED
    | HEADS
    | {"num_local_experts": 4, "num_experts_per_tok": 2, "layer_types": MIXED, "sliding_window": 8},
}  # fmt: skip


def tiny_config(name: str, **changes: Any) -> Any:
    """The config of a tiny model of this architecture."""
    from transformers import AutoConfig

    return AutoConfig.for_model(name, **(COMMON | ARCHITECTURES[name] | changes))


def tiny_model(name: str, seed: int = 0, **changes: Any) -> Any:
    """A model with weights large enough for every block to matter, and norms that are not all ones."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(tiny_config(name, **changes)).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def save_tiny(name: str, folder: Path, shard_size: str = "5GB", **changes: Any) -> Path:
    """The same model as a checkpoint folder without a tokenizer."""
    tiny_model(name, **changes).save_pretrained(folder, max_shard_size=shard_size)
    return folder
