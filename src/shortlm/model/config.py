"""Rewrite the config of a model that loses blocks, every per-layer field included, or refuse.

What transformers writes per layer is of four kinds: lists with one entry per layer, lists of layer
indices, counts of leading layers, and periods. Fields of unknown meaning are refused, and `guard`
then compares the blocks that the new config builds with those of the old one.
"""

from __future__ import annotations

from typing import Any

from shortlm.errors import ModelError, library_errors
from shortlm.model.anatomy import block_count

LAYER_LISTS = {"layer_types", "mlp_layer_types", "layers_block_type", "no_rope_layers", "attention_layers"}
LAYER_LISTS |= {"activation_sparsity_pattern", "intermediate_size", "layer_rope_theta", "num_attention_heads_per_layer"}
LAYER_LISTS |= {"attention_window_size_per_layer", "block_configs", "ffn_multipliers", "num_key_value_heads"}
LAYER_LISTS |= {"num_attention_heads", "num_query_heads", "num_kv_heads"}
INDEX_LISTS = {"mlp_only_layers", "moe_layers", "cross_attention_layers", "hybrid_layer_ids", "attn_layer_indices"}
INDEX_LISTS |= {"full_attn_idxs", "full_attention_layers"}
BY_INDEX = {"per_layer_config", "left_out", "widths"}
PREFIX_COUNTS = {"first_k_dense_replace", "num_dense_layers", "max_window_layers"}

# The maths of these depends on the block's index or on the depth, though shapes and attributes may not show it.
DEPTH_DEPENDENT_TYPES = {
    "diffllama": "its attention's lambda depends on the block's index",
    "minimax": "its residual factors belong to fixed places",
    "minicpm3": "its residual scale depends on the number of blocks",
}
DEPTH_DEPENDENT_FIELDS = {
    "scale_attn_by_inverse_layer_idx": "attention is scaled by the block's index",
    "num_kv_shared_layers": "the last blocks share the keys and values of earlier ones",
    "scale_depth": "the residual scale depends on the number of blocks",
    "mup_scale_change_last_stage": "the scale depends on the block's index",
}


def cut_config(config: Any, kept: list[int]) -> Any:
    """A new config with only the blocks `kept` (original indices, in order). Raises ModelError naming the field."""
    n_blocks = block_count(config)
    _refuse_depth_dependent(config)
    with library_errors(ModelError, f"{config.model_type}: its config refuses to be shortened"):
        fields = config.to_dict()
        rewritten = {name: _rewritten(config, name, value, kept, n_blocks) for name, value in fields.items()}
        rewritten |= _explicit_periods(fields, kept, n_blocks)
        rewritten[config.attribute_map.get("num_hidden_layers", "num_hidden_layers")] = len(kept)
        return type(config).from_dict(rewritten)


def _refuse_depth_dependent(config: Any) -> None:
    name = config.model_type
    reasons = [DEPTH_DEPENDENT_TYPES.get(name)]
    reasons += [f"{f}: {why}" for f, why in DEPTH_DEPENDENT_FIELDS.items() if getattr(config, f, None)]
    if any(reasons):
        raise ModelError(f"{name}: can't be cut soundly ({next(filter(None, reasons))})")
    if getattr(config, "quantization_config", None):
        raise ModelError(f"{name}: this checkpoint is quantised; cut the unquantised one, then quantise the result")


def _rewritten(config: Any, name: str, value: Any, kept: list[int], n_blocks: int) -> Any:
    if name in INDEX_LISTS and isinstance(value, list):
        return [kept.index(i) for i in value if i in kept]
    if name in PREFIX_COUNTS and isinstance(value, int):
        return sum(i < value for i in kept)
    if name in BY_INDEX and isinstance(value, dict):
        return {str(kept.index(int(i))): entry for i, entry in value.items() if int(i) in kept}
    if name == "attention_types" and hasattr(config, "attention_layers"):
        return [[[config.attention_layers[i] for i in kept], 1]]  # gpt_neo's compressed form
    if not isinstance(value, (list, tuple)) or len(value) != n_blocks:
        return value
    if name in LAYER_LISTS:
        return [value[i] for i in kept]
    raise ModelError(
        f"{config.model_type}: config field '{name}' has one entry per block and its meaning is unknown; "
        "this architecture can't be cut soundly yet"
    )


def _explicit_periods(fields: dict[str, Any], kept: list[int], n_blocks: int) -> dict[str, Any]:
    """Qwen's rule 'every step-th block is sparse' becomes the list of the dense ones."""
    step = fields.get("decoder_sparse_step")
    if not step or step == 1 or "mlp_only_layers" not in fields:
        return {}
    dense = {i for i in range(n_blocks) if (i + 1) % step or i in (fields["mlp_only_layers"] or [])}
    return {"decoder_sparse_step": 1, "mlp_only_layers": [new for new, old in enumerate(kept) if old in dense]}
