"""A tiny random model of every causal and image-text type of the installed transformers, made from its config class.

Fields that say a size get a small one wherever they occur, also in the configs of towers; what some types need beside
is in `SPECIAL`. The language model has 6 blocks, of mixed kinds where the type mixes kinds.
"""

from __future__ import annotations

from typing import Any

BLOCKS, VOCABULARY = 6, 96
SIZES: dict[str, Any] = dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), VOCABULARY)
SIZES |= dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "embed_dim", "embedding_size", "hidden_dim"), 32)
SIZES |= dict.fromkeys(("out_hidden_size", "projection_dim", "projector_hidden_size", "text_hidden_size"), 32)
SIZES |= dict.fromkeys(("word_embed_proj_dim", "encoder_hidden_size", "audio_hidden_size", "vision_hidden_size"), 32)
SIZES |= dict.fromkeys(("image_text_hidden_size", "output_dim", "attention_hidden_size"), 32)
SIZES |= dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "d_ff", "ffn_hidden_size", "inner_dim"), 48)
SIZES |= dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "mlp_dim", "dff", "dim_ff"), 48)
SIZES |= dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"), 4)
SIZES |= dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4)
SIZES |= dict.fromkeys(("num_key_value_heads", "n_kv_heads", "num_kv_heads", "num_query_groups"), 2)
SIZES |= dict.fromkeys(("head_dim", "dim_head", "attention_head_dim"), 8)
SIZES |= dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "model_max_length"), 128)
SIZES |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "_pad_token_id": 0, "sep_token_id": 2}
SIZES |= dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4)
SIZES |= {"num_experts_per_tok": 2, "moe_k": 2, "n_group": 1, "topk_group": 1, "num_expert_groups": 1}
SIZES |= dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "shared_intermediate_size"), 16)
SIZES |= dict.fromkeys(("moe_shared_expert_intermediate_size", "shared_experts_intermediate_size"), 16)
SIZES |= dict.fromkeys(("sliding_window", "sliding_window_size", "chunk_size", "mamba_chunk_size"), 8)
SIZES |= dict.fromkeys(("q_lora_rank", "kv_lora_rank", "o_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim"), 8)
SIZES |= {"v_head_dim": 8, "qk_head_dim": 16, "index_head_dim": 16, "index_n_heads": 2, "index_topk": 64}
SIZES |= {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
SIZES |= {"mamba_d_state": 8, "state_size": 8, "ssm_state_size": 8, "time_step_rank": 4, "mamba_dt_rank": 4}
SIZES |= {"mamba_n_heads": 8, "mamba_num_heads": 8, "mamba_d_head": 8, "mamba_head_dim": 8, "mamba_headdim": 8}
SIZES |= {"mamba_d_ssm": 64, "query_pre_attn_scalar": 8, "image_size": 28, "patch_size": 14, "num_mel_bins": 16}
SIZES |= {"hidden_size_per_layer_input": 8, "rotary_dim": 8, "window_size": 4}
DEPTHS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "decoder_layers", "layers")
OTHER_DEPTHS = (*DEPTHS, "depth", "encoder_layers", "num_decoder_layers")
MROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}}
WIDE_MROPE = {"rope_parameters": MROPE["rope_parameters"] | {"mrope_section": [2, 3, 3]}, "head_dim": 16}
HALF_MROPE = {"rope_parameters": MROPE["rope_parameters"] | {"partial_rotary_factor": 0.5}, "head_dim": 16}
PER_KIND = {"rope_type": "default", "rope_theta": 1e4}
KINDS = ("layer_types", "mlp_layer_types", "layers_block_type", "hybrid_layer_pattern")
SPECIAL: dict[str, dict[str, Any]] = {
    "chameleon": {"vocabulary_map": {"<image>": 90, **{f"IMGIMGA{c}Z": 80 + i for i, c in enumerate("ABCDEFGH")}}},
    "cohere_compass_text": {"rope_parameters": dict.fromkeys(("full_attention", "sliding_attention"), PER_KIND)},
    "cosmos3_edge_text": WIDE_MROPE,
    "cpmant": {"prompt_types": 4, "prompt_length": 4, "segment_types": 4},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 32},
    },
    "dots1": {"n_shared_experts": 1, "n_routed_experts": 4, "first_k_dense_replace": 1},
    "dots3_note_text": {"num_key_value_heads": 4},
    "emu3": {"vocabulary_map": {"<image>": 90, **{f"<|visual token {i:06d}|>": 80 + i for i in range(8)}}},
    "ernie4_5_vl_moe_text": {"moe_intermediate_size": [16, 16], "num_experts": 4, "head_dim": 8,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "glm4v_text": MROPE,
    "glm4v_moe_text": HALF_MROPE,
    "glm_ocr_text": WIDE_MROPE,
    "glm5_next_text": {"num_key_value_heads": 4, "index_kpool": 2, "qk_rope_head_dim": 0},
    "gpt_neo": {"attention_types": [[["global", "local"], 3]]},
    "granite4_vision": {"deepstack_layer_map": [[-1, 0], [-2, 2]], "spatial_target_layers": [0, 2],
        "downsample_rate": "1/2",
        "vision_config": {"model_type": "siglip_vision_model", "hidden_size": 64, "intermediate_size": 48,
                          "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 28, "patch_size": 14}},
    "deepseek_ocr2_text": {"mlp_layer_types": ["dense"] + ["sparse"] * 5},
    "muse_spark_audio": {"num_hidden_layers": 4},
    "granitemoehybrid": {"layers_block_type": ["mamba", "mamba", "attention"] * 2},
    "bamba": {"attn_layer_indices": [1, 4]},
    "hy_v4": {"indexer_types": ["full"] * 6},
    "hunyuan_vl_text": MROPE,
    "lfm2_moe": {"layer_types": ["conv", "conv", "full_attention"] * 2},
    "mamba2": {"num_heads": 8, "n_groups": 2},
    "mistral4": {
        "rope_parameters": {
            "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32,
            "partial_rotary_factor": 0.5, "llama_4_scaling_beta": 0.1, "mscale": 1.0, "mscale_all_dim": 1.0,
        },
        "head_dim": 16,
    },
    "molmo2_vision": {"image_size": [28, 28]},
    "molmo2_adapter": {"vision_feature_layer": [1, 0]},
    "radio": {"video_temporal_patch_size": 2},
    "qwen4_exp_text": {
        "indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 64,
        "indexer_compress_ratio": 1, "hc_lowrank": 8,
    },
    "paddleocr_vl_text": WIDE_MROPE,
    "qwen2_5_omni_text": MROPE,
    "qwen2_5_omni_thinker": {"vision_start_token_id": 94, "vision_end_token_id": 93},
    "qwen3_omni_moe_thinker": {"vision_start_token_id": 94, "vision_end_token_id": 93},
    "qwen2_5_vl_text": MROPE,
    "qwen2_vl_text": MROPE,
    "reformer": {"is_decoder": True, "axial_pos_embds_dim": (8, 24), "axial_pos_shape": (8, 16)},
    "xlstm": {"num_blocks": 6, "hidden_size": 64, "embedding_dim": 64, "qk_dim_factor": 1.0},
    "xmod": {"default_language": "en_XX"},
    "zamba2": {"layers_block_type": ["mamba", "hybrid"] * 3},
    "zaya": {"num_experts_per_tok": 1},
}  # fmt: skip


def every_type() -> list[str]:
    """All types that a causal LM or an image-text model (or audio-text model) of transformers is built from."""
    from transformers.models.auto import modeling_auto as auto

    mappings = (auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
    return sorted({*mappings[0], *mappings[1], *auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES})


def tiny_config_of(model_type: str) -> Any:
    """The config of a tiny model of this type."""
    from transformers import CONFIG_MAPPING

    kind = CONFIG_MAPPING[model_type]
    return kind(**_small(kind, kind(**_needed(model_type)), is_language=True))


def tiny_fields(model_type: str) -> dict[str, Any]:
    """The fields of a small config of a tower."""
    from transformers import CONFIG_MAPPING

    return _small(CONFIG_MAPPING[model_type], CONFIG_MAPPING[model_type](), is_language=False)


def _needed(model_type: str) -> dict[str, Any]:
    """What a default config of this type can't be made without."""
    return {
        "gemma4_assistant": {"text_config": {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0}}
    }.get(model_type, {})


def _small(kind: Any, default: Any, is_language: bool) -> dict[str, Any]:
    """The fields of a small config of this class, those of the configs in it included."""
    known = set(kind.__dataclass_fields__)
    fields = {name: value for name, value in SIZES.items() if name in known}
    depths = DEPTHS if is_language else OTHER_DEPTHS
    fields |= {name: BLOCKS if is_language else 2 for name in depths if type(vars(default).get(name)) is int}
    fields |= _token_ids(default)
    if "is_decoder" in known:  # BERT's kin
        fields["is_decoder"] = True
    if "kv_lora_rank" in known:  # every head has keys and values of its own
        fields["num_key_value_heads"] = 4
    text = default.get_text_config(decoder=True) if is_language else None
    for name in default.sub_configs:
        sub = vars(default).get(name)
        if hasattr(sub, "model_type"):
            fields[name] = {"model_type": sub.model_type} | _small(type(sub), sub, is_language and _holds(sub, text))
    return fields | SPECIAL.get(kind.model_type, {})


def _holds(config: Any, text: Any) -> bool:
    return config is text or any(_holds(sub, text) for n in config.sub_configs if (sub := vars(config).get(n)))


def _token_ids(default: Any) -> dict[str, int]:
    """Tokens that stand for images and the like, distinct, at the end of the small vocabulary."""
    ends = ("_token_id", "_token_index")
    names = [n for n, v in vars(default).items() if n.endswith(ends) and type(v) is int and n not in SIZES]
    return {name: VOCABULARY - 1 - place for place, name in enumerate(sorted(names))}


def removable(config: Any) -> list[int]:
    """Two blocks that are no neighbours, without which blocks of every kind are left."""
    text = config.get_text_config()
    lists = [found for name in KINDS if isinstance(found := getattr(text, name, None), list) and len(found) == BLOCKS]
    kinds = [tuple(found[i] for found in lists) for i in range(BLOCKS)]
    whole = {*kinds}
    vision = getattr(config, "vision_config", None)
    first = max(1, len(getattr(vision, "deepstack_visual_indexes", None) or ()))  # images enter behind those before
    pairs = ([i, j] for i in range(first, BLOCKS) for j in range(i + 2, BLOCKS))
    return next((p for p in pairs if {k for i, k in enumerate(kinds) if i not in p} == whole), [first, first + 2])
