"""Our own model type: any architecture of transformers without some of its sublayers, or with narrower layers.

config.json holds model_type "shortlm", `base_model_type`, `left_out` (see left_out.py), `widths` (see widths.py) and
all fields of the base architecture. Config and model are subclasses of the base's own, made when they are first asked
for: whatever works on the base (generate, PEFT, the Trainer, saving) works on them. What is left out costs no time, no
weights and no cache: caches are sized by a view of the config that counts the blocks with attention alone.
"""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

from shortlm.errors import ModelError, shown
from shortlm.model.anatomy import MOST_BLOCKS
from shortlm.model.config import LAYER_LISTS
from shortlm.model.language import auto_classes, is_composite
from shortlm.model.left_out import MOST_THINGS, LeftOut, leave_out
from shortlm.model.widths import Widths, narrow, say_widths
from shortlm.registering import OWN_TYPE
from shortlm.units import ATTENTION, FFN


class OwnConfig:
    """What the config of our type has beside the base's own."""

    model_type = OWN_TYPE
    left_out: LeftOut = {}
    widths: Widths = {}

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> Any:
        """As transformers asks it for a cache (decoder=True), a view with the blocks that have attention alone."""
        found: Any = super()
        config = found.get_text_config(decoder=decoder, encoder=encoder)
        without = [int(i) for i, parts in self.left_out.items() if ATTENTION in parts]
        return _counting_others(config, without) if decoder and without else config


def _counting_others(config: Any, without: list[int]) -> Any:
    """A copy for which these blocks don't exist; not checked again, since it is asked for every cache."""
    count = config.num_hidden_layers
    attending = [i for i in range(count) if i not in without]
    view = copy.copy(config)
    for name, value in vars(config).items():
        if name in LAYER_LISTS and isinstance(value, (list, tuple)) and len(value) == count:
            vars(view)[name] = [value[i] for i in attending]
    vars(view)[config.attribute_map.get("num_hidden_layers", "num_hidden_layers")] = len(attending)
    vars(view)["left_out"] = {}
    return view


class OwnModel:
    """What the model of our type does beside the base's own."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any):
        base: Any = super()
        base.__init__(config, *args, **kwargs)
        leave_out(self, config.left_out)
        narrow(self, config.widths)


def read_config(fields: dict[str, Any], **kwargs: Any) -> Any:
    """The config of our type that config.json holds. Raises ValueError if it is none."""
    base_type = fields.get("base_model_type")
    config_class, _ = own_classes(base_type if isinstance(base_type, str) else None)
    if not _says_what(fields.get("left_out")):
        raise ValueError(f"left_out: {shown(fields.get('left_out'))} is no mapping of block, part, module, number")
    if not say_widths(fields.get("widths", {})):
        raise ValueError(
            f"widths: {shown(fields.get('widths'))} is no mapping of block, layer, [inputs, outputs, bias]"
        )
    return config_class.from_dict(fields, **kwargs)


def _says_what(left_out: Any) -> bool:
    """Whether it maps blocks to parts to modules to numbers of things."""
    if not isinstance(left_out, dict) or not all(isinstance(parts, dict) for parts in left_out.values()):
        return False
    if not all(i.isdecimal() and i.isascii() and int(i[:9]) < MOST_BLOCKS for i in left_out):
        return False
    items = [item for parts in left_out.values() for item in parts.items()]
    return all(
        part in (ATTENTION, FFN) and isinstance(modules, dict)
        and all(type(things) is int and 0 <= things <= MOST_THINGS for things in modules.values())
        for part, modules in items
    )  # fmt: skip


@cache
def own_classes(base_type: Any) -> tuple[Any, Any]:
    """Config and model class for a base architecture, registered with transformers. Raises ValueError for another."""
    from transformers import CONFIG_MAPPING

    base: Any = CONFIG_MAPPING[base_type] if base_type in CONFIG_MAPPING and base_type != OWN_TYPE else None
    autos = auto_classes("text_config" in base.sub_configs) if base else []
    auto, models = next(((auto, models) for auto, models in autos if base in models), (None, {}))
    if auto is None:
        raise ValueError(f"base_model_type: {shown(base_type)} is no causal LM that transformers knows")
    model: Any = models[base]
    config_class = _made(OwnConfig, base, {"model_type": OWN_TYPE})
    model_class = _made(OwnModel, model, {"config_class": config_class})
    auto.register(config_class, model_class)
    _share_tokenizer(base, config_class)
    _share_conversions(model, base_type, model_class)
    return config_class, model_class


def _made(own: type, base: type, attributes: dict[str, Any]) -> type:
    """A class of this module, where pickles look for it."""
    made = type(f"Short{base.__name__}", (own, base), {"__module__": __name__, "__doc__": own.__doc__, **attributes})
    globals()[made.__name__] = made
    return made


def _share_tokenizer(base: Any, config_class: Any) -> None:
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING

    if base in TOKENIZER_MAPPING:
        TOKENIZER_MAPPING.register(config_class, TOKENIZER_MAPPING[base])


def _share_conversions(model: type, base_type: str, model_class: type) -> None:
    """What transformers does to the names and tensors of the base's files (it goes by names of types and classes)."""
    from transformers import conversion_mapping as conversions

    found = conversions.get_checkpoint_conversion_mapping(model.__name__)
    found = found or conversions.get_checkpoint_conversion_mapping(base_type)
    if found:
        conversions.register_checkpoint_conversion_mapping(model_class.__name__, found, overwrite=True)


def architecture_of(config: Any) -> str:
    """Its type, and of ours that which it is made of: shortlm (llama)."""
    own = f"{config.model_type} ({config.base_model_type})" if isinstance(config, OwnConfig) else None
    return own or config.model_type


def left_out_of(config: Any) -> LeftOut:
    """What is left out of a model of this config."""
    return config.left_out if isinstance(config, OwnConfig) else {}


def widths_of(config: Any) -> Widths:
    """The layers of other widths in a model of this config."""
    return config.widths if isinstance(config, OwnConfig) else {}


def plain_config(config: Any) -> Any:
    """The base architecture's config, with all sublayers and of its own widths."""
    if not isinstance(config, OwnConfig):
        return config
    from transformers import CONFIG_MAPPING

    ours = ("model_type", "base_model_type", "left_out", "widths")
    fields = {n: v for n, v in config.to_dict().items() if n not in ours}
    fields["architectures"] = [n.removeprefix("Short") for n in fields.get("architectures") or []]
    return CONFIG_MAPPING[config.base_model_type].from_dict(fields)


def own_config(config: Any, left_out: LeftOut, widths: Widths | None = None) -> Any:
    """The config of our type: the base's without what is left out, and with these widths. Raises ModelError for code
    from elsewhere.
    """
    if not type(config).__module__.startswith("transformers."):
        raise ModelError(
            f"{config.model_type}: its code comes with the checkpoint, which our own type can't be made of; "
            "remove whole blocks, or choose another form"
        )
    if is_composite(config) and any(ATTENTION in parts for parts in left_out.values()):
        raise ModelError(  # its cache goes by the language model's own config, which is none of ours
            f"{config.model_type}: attention can't be left out of the language model in a composite one; remove FFNs "
            "or whole blocks, or choose --as zeroed"
        )
    config_class, model_class = own_classes(config.model_type)
    fields = {n: v for n, v in config.to_dict().items() if n != "model_type"}
    more = {"base_model_type": config.model_type, "left_out": left_out, "architectures": [model_class.__name__]}
    return config_class.from_dict(fields | more | ({"widths": widths} if widths else {}))
