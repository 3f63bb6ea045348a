"""Rewrite the config of a model that loses blocks, every per-layer field included, or refuse.

What transformers writes per layer is of four kinds: lists with one entry per layer, lists of layer
indices, counts of leading layers, and periods. Fields of unknown meaning are refused, and `guard`
then compares the blocks that the new config builds with those of the old one.
"""

from __future__ import annotations

import math
from typing import Any

from shortlm.errors import ModelError, library_errors
from shortlm.model.anatomy import block_count, count_field
from shortlm.model.language import text_config, with_text_config

LAYER_LISTS = {"layer_types", "mlp_layer_types", "layers_block_type", "no_rope_layers", "attention_layers"}
LAYER_LISTS |= {"activation_sparsity_pattern", "intermediate_size", "layer_rope_theta", "num_attention_heads_per_layer"}
LAYER_LISTS |= {"attention_window_size_per_layer", "block_configs", "ffn_multipliers", "num_key_value_heads"}
LAYER_LISTS |= {"num_attention_heads", "num_query_heads", "num_kv_heads", "indexer_types", "attn_layers"}
INDEX_LISTS = {"mlp_only_layers", "moe_layers", "cross_attention_layers", "hybrid_layer_ids", "attn_layer_indices"}
INDEX_LISTS |= {"full_attn_idxs", "full_attention_layers", "rope_scaling_layers"}
IMAGE_ENTRIES = ("deepstack_layer_map", "spatial_target_layers")  # of a composite config (Granite 4 Vision)
REFERENCES = {"kv_source_layers"}  # one entry per block: the block whose keys and values it reads
BY_INDEX = {"per_layer_config", "left_out", "widths"}
PREFIX_COUNTS = {"first_k_dense_replace", "num_dense_layers", "max_window_layers"}

# The maths of these depends on the block's index or on the depth, though shapes and attributes may not show it.
DEPTH_DEPENDENT_TYPES = {
    "diffllama": "its attention's lambda depends on the block's index",
    "minimax": "its residual factors belong to fixed places",
    "beam": "what each block adds is weighted by its index",
    "inkling2_text": "its attention reads the states of earlier blocks at fixed distances",
    "zaya": "each block's router reads the router of the block before it",
}
DEPTH_DEPENDENT_FIELDS = {
    "scale_attn_by_inverse_layer_idx": "attention is scaled by the block's index",
    "mup_scale_change_last_stage": "the scale depends on the block's index",
}


def cut_config(config: Any, kept: list[int]) -> Any:
    """A new config with only the blocks `kept` (original indices, in order); the rest of a composite one stays.

    Raises ModelError naming the field that stands in the way.
    """
    if getattr(config, "quantization_config", None):
        what = "this checkpoint is quantised; cut the unquantised one, then quantise the result"
        raise ModelError(f"{config.model_type}: {what}")
    whole = with_text_config(config, _shorter(text_config(config), kept))
    _refuse_without_image_blocks(config, kept)
    for field in IMAGE_ENTRIES:
        if entries := getattr(config, field, None):
            setattr(whole, field, _moved(config, field, entries, kept))
    return whole


def _refuse_without_image_blocks(config: Any, kept: list[int]) -> None:
    """DeepStack (Qwen3-VL) adds one more feature of the image behind each of the first blocks, by their index."""
    count = len(getattr(getattr(config, "vision_config", None), "deepstack_visual_indexes", None) or ())
    if kept[:count] != list(range(count)):
        first = ",".join(map(str, range(count)))
        raise ModelError(
            f"{config.model_type}: features of images enter behind blocks 0 to {count - 1}, so these have to stay "
            f"(--protect {first})"
        )


def _moved(config: Any, field: str, entries: list[Any], kept: list[int]) -> list[Any]:
    """Blocks at whose entry features of images are added: where one goes, they enter the next that stays."""
    places = [entry[-1] if isinstance(entry, (list, tuple)) else entry for entry in entries]
    new = [sum(i < place for i in kept) for place in places]
    if len({*new}) < len(new) or max(new) >= len(kept):
        raise ModelError(f"{config.model_type}: no block would be left for a feature of images ({field}); keep more")
    return [[*e[:-1], p] if isinstance(e, (list, tuple)) else p for e, p in zip(entries, new, strict=True)]


def _shorter(config: Any, kept: list[int]) -> Any:
    n_blocks = block_count(config)
    _refuse_depth_dependent(config)
    with library_errors(ModelError, f"{config.model_type}: its config refuses to be shortened"):
        fields = config.to_dict()
        rewritten = {name: _rewritten(config, name, value, kept, n_blocks) for name, value in fields.items()}
        rewritten |= _explicit_periods(fields, kept, n_blocks) | _other_rules(config, fields, kept, n_blocks)
        rewritten[count_field(config)] = len(kept)
        return type(config).from_dict(rewritten)


def _refuse_depth_dependent(config: Any) -> None:
    name = config.model_type
    reasons = [DEPTH_DEPENDENT_TYPES.get(name)]
    reasons += [f"{f}: {why}" for f, why in DEPTH_DEPENDENT_FIELDS.items() if getattr(config, f, None)]
    if any(reasons):
        raise ModelError(f"{name}: can't be cut soundly ({next(filter(None, reasons))})")


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
    if name in REFERENCES:
        return [_source(config, name, i, value[i], kept) for i in kept]
    if name == "indexer_types":
        _refuse_without_indexer(config, value, kept)
    if name in LAYER_LISTS:
        return [value[i] for i in kept]
    raise ModelError(
        f"{config.model_type}: config field '{name}' has one entry per block and its meaning is unknown; "
        "this architecture can't be cut soundly yet"
    )


def _source(config: Any, field: str, block: int, source: int, kept: list[int]) -> int:
    if source in kept:
        return kept.index(source)
    raise ModelError(
        f"{config.model_type}: block {block} reads keys and values of block {source} ({field}), which has to stay as "
        "long as it does; remove both"
    )


def _refuse_without_indexer(config: Any, types: list[str], kept: list[int]) -> None:
    """A "shared" block attends to the tokens that the last "full" one before it has picked."""
    for block in (i for i in kept if types[i] == "shared"):
        source = max((i for i in range(block) if types[i] != "shared"), default=0)
        if source not in kept:
            raise ModelError(
                f"{config.model_type}: block {block} attends to tokens picked by the indexer of block {source}, which "
                "has to stay as long as it does; remove both"
            )


def refuse_shared_states(config: Any) -> None:
    """Raises ModelError if blocks read what earlier ones computed beside the hidden state: then none runs alone."""
    text = text_config(config)
    sources = getattr(text, "kv_source_layers", None) or []
    found = {
        "num_kv_shared_layers": getattr(text, "num_kv_shared_layers", None),
        "indexer_types": "shared" in (getattr(text, "indexer_types", None) or ()),
        "kv_source_layers": any(source != i for i, source in enumerate(sources)),
    }
    if field := next((name for name, shared in found.items() if shared), None):
        raise ModelError(
            f"{config.model_type}: some blocks read what earlier ones computed beside the hidden state ({field}), so "
            "blocks can't be run one at a time; choose by hand (shortlm cut --remove), in memory"
        )


def _explicit_periods(fields: dict[str, Any], kept: list[int], n_blocks: int) -> dict[str, Any]:
    """Qwen's rule 'every step-th block is sparse' becomes the list of the dense ones."""
    step = fields.get("decoder_sparse_step")
    if not step or step == 1 or "mlp_only_layers" not in fields:
        return {}
    dense = {i for i in range(n_blocks) if (i + 1) % step or i in (fields["mlp_only_layers"] or [])}
    return {"decoder_sparse_step": 1, "mlp_only_layers": [new for new, old in enumerate(kept) if old in dense]}


def _other_rules(config: Any, fields: dict[str, Any], kept: list[int], n_blocks: int) -> dict[str, Any]:
    """Rules that depend on the number of blocks, or count from the last one, said anew for those that stay."""
    new: dict[str, Any] = {}
    if fields.get("num_kv_shared_layers"):  # that the blocks whose keys they read stay, `guard` sees
        new["num_kv_shared_layers"] = sum(i >= n_blocks - fields["num_kv_shared_layers"] for i in kept)
    if fields.get("scale_depth"):  # what a block adds is multiplied by scale_depth / sqrt(number of blocks)
        new["scale_depth"] = fields["scale_depth"] * math.sqrt(len(kept) / n_blocks)
    if fields.get("num_blocks") == n_blocks:  # xLSTM's number of blocks, beside num_hidden_layers
        new["num_blocks"] = len(kept)
    if fields.get("block_types"):  # repeated as often as needed
        types = fields["block_types"]
        new["block_types"] = [types[i % len(types)] for i in kept]
    for kind in ("attn", "expert"):
        if (period := f"{kind}_layer_period") in fields and (offset := f"{kind}_layer_offset") in fields:
            new |= zip((period, offset), _period(config, period, kept, fields[period], fields[offset]), strict=True)
    return new


def _period(config: Any, field: str, kept: list[int], period: int, offset: int) -> tuple[int, int]:
    """A period and an offset that tell those of the blocks `kept` which were on the old beat. Raises ModelError."""
    wanted = [i % period == offset for i in kept]
    for p in range(1, len(kept) + 1):
        for o in range(p):
            if [i % p == o for i in range(len(kept))] == wanted:
                return p, o
    if not any(wanted):
        return len(kept) + 1, len(kept)
    raise ModelError(
        f"{config.model_type}: {field} can say kinds of blocks at equal distances only, which those that stay are not; "
        "remove others, for instance all blocks of a period"
    )
