"""The language model inside a composite one (a vision or audio model that speaks): its config, and who builds it.

In a plain causal LM that is the config itself.
"""

from __future__ import annotations

import copy
from typing import Any

from shortlm.errors import ModelError, library_errors


def text_config(config: Any) -> Any:
    """The config that describes the blocks. Raises ModelError for an encoder-decoder."""
    name = getattr(config, "model_type", type(config).__name__)
    with library_errors(ModelError, f"{name}: its language model can't be told apart"):
        found = config.get_text_config()
    if getattr(config, "is_encoder_decoder", False) or getattr(found, "is_encoder_decoder", False):
        raise ModelError(f"{name}: is an encoder-decoder, whose blocks read the encoder too; a causal LM is needed")
    return found


def is_composite(config: Any) -> bool:
    """Whether the language model is a part of the model only."""
    return text_config(config) is not config


def vocabulary(config: Any) -> int:
    """How many tokens the language model knows. Raises ModelError if the config doesn't say."""
    found = getattr(text_config(config), "vocab_size", None)
    if not isinstance(found, int):
        raise ModelError(f"{config.model_type}: its config names no vocab_size; a causal LM is needed")
    return found


def special_ids(config: Any) -> list[int]:
    """Tokens that the config gives a meaning: beginning and end, padding, places of images and the like."""
    ends = ("_token_id", "_token_ids", "_token_index", "_patch_id")
    values = [v for c in (config, text_config(config)) for n, v in vars(c).items() if n.endswith(ends)]
    return [i for v in values for i in (v if isinstance(v, (list, tuple)) else [v]) if isinstance(i, int)]


def with_text_config(config: Any, text: Any) -> Any:
    """A config like this one, whose language model is that of `text`."""
    if not is_composite(config):
        return text
    whole = copy.deepcopy(config)
    holder = whole
    *outer, last = _path(config, text_config(config))
    for name in outer:
        holder = getattr(holder, name)
    setattr(holder, last, text)
    return whole


def _path(config: Any, wanted: Any) -> list[str]:
    """The attributes that lead from a config to one inside it. Raises ModelError if none do."""
    if found := _search(config, wanted):
        return found
    raise ModelError(f"{config.model_type}: the place of its language model's config is unknown; it can't be cut")


def _search(config: Any, wanted: Any) -> list[str] | None:
    for name in config.sub_configs:
        sub = getattr(config, name, None)
        if sub is wanted:
            return [name]
        if hasattr(sub, "sub_configs") and (rest := _search(sub, wanted)):
            return [name, *rest]
    return None


def auto_class(config: Any) -> Any:
    """The auto class of transformers that makes the very class which config.json names: the towers stay with the model.

    Where it names none of theirs, a composite model is made whole, and anything else as a causal LM.
    """
    from transformers import AutoModelForCausalLM

    made = {auto: _made_by(auto, mapping, config) for auto, mapping in auto_classes(is_composite(config))}
    named = [auto for auto, names in made.items() if {*names} & {*(config.architectures or ())}]
    return next(iter([*named, *(auto for auto, names in made.items() if names)]), AutoModelForCausalLM)


def auto_classes(composite: bool) -> list[tuple[Any, Any]]:
    """The auto classes that make language models, each with its mapping of configs to models, the likeliest first."""
    import transformers as t

    causal = (t.AutoModelForCausalLM, t.MODEL_FOR_CAUSAL_LM_MAPPING)
    image = (t.AutoModelForImageTextToText, t.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING)
    multimodal = (t.AutoModelForMultimodalLM, t.MODEL_FOR_MULTIMODAL_LM_MAPPING)
    return [image, multimodal, causal] if composite else [causal, image, multimodal]


def _made_by(auto: Any, mapping: Any, config: Any) -> list[str]:
    """The names of the classes that an auto class makes of a config."""
    own = (getattr(config, "auto_map", None) or {}).get(auto.__name__)  # code that comes with the checkpoint
    if own:
        return [str(own).rpartition(".")[2]]
    found = mapping.get(type(config), ())
    return [kind.__name__ for kind in (found if isinstance(found, tuple) else (found,))]
