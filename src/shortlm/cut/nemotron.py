"""Llama-shaped models without some sublayers as NVIDIA's published type for them, which other engines load.

config.json says for every block what it has (`block_configs`; the keys are those of nvidia/Llama-3_1-Nemotron-51B).
transformers has no code for it. What engines compute from the config is computed here too, and has to come out exactly.
"""

from __future__ import annotations

from typing import Any

from shortlm.cut.decilm_files import CONFIG_CLASS
from shortlm.errors import ModelError, PlanError
from shortlm.model import find_anatomy
from shortlm.model.left_out import LeftOut
from shortlm.units import ATTENTION, FFN

ALIKE = {"llama", "mistral"}  # their maths is Llama's, which shapes and names alone don't tell
MULTIPLE = 256  # engines round the FFN's width up to a multiple of this
MATRICES = {f"self_attn.{x}_proj.weight" for x in "qkvo"} | {f"mlp.{x}_proj.weight" for x in ("gate", "up", "down")}
NORMS = {"input_layernorm.weight", "post_attention_layernorm.weight"}


def _unlike_llama(config: Any, model: Any) -> str | None:
    if config.model_type not in ALIKE:
        return f"a {config.model_type} is no Llama"
    names = {name for block in find_anatomy(model).blocks for name, _ in block.named_parameters()}
    if more := sorted(names - MATRICES - NORMS):
        return f"it has {more[0]}"
    if getattr(config, "sliding_window", None):
        return "its attention slides"
    heads = config.num_attention_heads
    if (width := getattr(config, "head_dim", None) or config.hidden_size // heads) * heads != config.hidden_size:
        return f"its {heads} heads of {width} don't make {config.hidden_size}"
    return None if config.hidden_act == "silu" else f"its activation is {config.hidden_act}"


def nemotron_config(name: str, config: Any, model: Any, left_out: LeftOut) -> dict[str, Any]:
    """The content of config.json for the plain `config` of the blocks that stay, and what is left out of them.

    Raises PlanError if the first block has no attention, ModelError, naming what differs, for a `model` (of the
    source, without memory) that this type can't say.
    """
    if reason := _unlike_llama(config, model):
        raise ModelError(f"{name}: can't be written as nemotron-nas ({reason}); give --as shortlm")
    if ATTENTION in left_out.get("0", {}):
        raise PlanError(
            f"{name}: the first block that stays has to keep its attention in a nemotron-nas checkpoint (engines begin "
            "the residual stream and read the cache's length there); keep it, or give --as shortlm"
        )
    fields = {n: v for n, v in config.to_diff_dict().items() if n not in ("layer_types", "sliding_window")}
    group, multiplier = config.num_attention_heads // config.num_key_value_heads, _multiplier(name, config)
    rope = dict(fields.get("rope_parameters") or {})
    scaled = {"rope_scaling": rope} if rope.get("rope_type", "default") != "default" else {}
    return fields | scaled | {
        "model_type": "nemotron-nas", "architectures": ["DeciLMForCausalLM"],
        "auto_map": {"AutoConfig": CONFIG_CLASS},
        "rope_theta": rope.get("rope_theta", 10000.0),
        "block_configs": [
            _block(left_out.get(str(i), {}), group, multiplier) for i in range(config.num_hidden_layers)
        ],
    }  # fmt: skip


def _block(without: dict[str, Any], group: int, multiplier: float) -> dict[str, Any]:
    no_attention, no_ffn = ATTENTION in without, FFN in without
    attention = {"n_heads_in_group": None if no_attention else group, "no_op": no_attention}
    attention |= {"num_sink_tokens": None, "replace_with_linear": False, "sparsify": None, "unshifted_sink": False}
    attention |= {"use_prefill_window_in_sink_attention": False, "window_length": None}
    ffn = {"ffn_mult": None if no_ffn else multiplier, "no_op": no_ffn, "replace_with_linear": False, "sparsify": None}
    return {"attention": attention, "ffn": ffn}


def _multiplier(name: str, config: Any) -> float:
    """The ffn_mult (6 digits) from which engines compute the FFN's width."""
    width, hidden = config.intermediate_size, config.hidden_size
    multiplier = round(3 * width / (2 * hidden), 6)
    computed = int(2 * multiplier * hidden / 3)
    if computed + -computed % MULTIPLE != width:
        raise ModelError(
            f"{name}: its FFN is {width} wide, which nemotron-nas can't say (multiples of {MULTIPLE}); "
            "give --as shortlm"
        )
    return multiplier
