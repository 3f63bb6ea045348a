"""In which form a narrower checkpoint is written, from the config alone.

| form | when | loads in |
|---|---|---|
| plain | every block keeps as many heads and channels, and the config can say it | transformers alone |
| shortlm | else | transformers, after `import shortlm` |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from shortlm.errors import ModelError, PlanError, ShortLMError, library_errors
from shortlm.leftovers import scratch_folder
from shortlm.model import (
    Widths,
    auto_class,
    find_anatomy,
    left_out_of,
    linear_widths,
    meta_model,
    own_config,
    plain_config,
    widths_of,
)  # fmt: skip
from shortlm.sweep import silent
from shortlm.units import ATTENTION, FFN
from shortlm.width.groups import WORDS, Groups
from shortlm.width.selection import Counts

BIASES = {ATTENTION: "attention_bias", FFN: "mlp_bias"}  # of all layers of a branch, as configs say it
FIXED = ("num_heads", "num_attention_heads", "n_heads", "n_head")  # of an attention module


@dataclass(frozen=True)
class Form:
    """What the written config is, and which tensors it makes that the source doesn't have."""

    name: Literal["plain", "shortlm"]
    config: Any
    added: dict[int, list[str]]  # of every block: biases


def form_of(
    asked: str, before: Any, groups: Sequence[Groups], counts: Counts, bias: bool, trust_remote_code: bool = False
) -> Form:
    """`before`: the source without memory for its weights. Raises PlanError where a plain config is asked for and can't
    say it.
    """
    said = _plain(before, groups, counts, bias, trust_remote_code)
    if isinstance(said, Form) and asked != "shortlm":
        return said
    if asked == "plain":
        raise PlanError(f"no plain {before.config.model_type} config can say this ({said}); give --as shortlm")
    _refuse_fixed_heads(before, groups, counts)
    widths = target_widths(before, groups, counts, bias)
    made = meta_model(plain_config(before.config), trust_remote_code)
    plain = [linear_widths(block) for block in find_anatomy(made).blocks]
    different: Widths = {}
    for i, layers in enumerate(widths):
        if here := {path: width for path, width in layers.items() if plain[i].get(path) != width}:
            different[str(i)] = here
    kept_as_it_is = {i: layers for i, layers in widths_of(before.config).items() if i not in different}
    config = own_config(plain_config(before.config), left_out_of(before.config), kept_as_it_is | different)
    added = {
        i: [f"{g.output}.bias" for g in groups if g.block == i and _gets_bias(g, counts, bias)] for i in _blocks(groups)
    }
    return Form("shortlm", config, added)


def _refuse_fixed_heads(before: Any, groups: Sequence[Groups], counts: Counts) -> None:
    """Our own type replaces layers and no numbers: an attention that keeps that of its heads would go wrong."""
    anatomy = find_anatomy(before)
    for g in groups:
        if g.part != ATTENTION or counts[g.block, g.part] == g.count:
            continue
        modules = [anatomy.blocks[g.block].get_submodule(name) for name in anatomy.attention[g.block]]
        kept = [vars(inner) for module in modules for inner in module.modules()]
        if field := next((f for f in FIXED if any(isinstance(v.get(f), int) and v[f] > 1 for v in kept)), None):
            raise ModelError(
                f"{before.config.model_type}: its attention keeps the number of its heads ({field}), so blocks can't "
                "have others than the config says; drop blocks of this model instead"
            )


def refuse_unrunnable(form: Form, before: Any, trust_remote_code: bool = False) -> None:
    """Raise ModelError if the model's own code fails, on shapes alone, with the widths of our own type's config."""
    if form.name == "plain" or _failure(before.config, trust_remote_code):
        return
    if failure := _failure(form.config, trust_remote_code):
        raise ModelError(
            f"{before.config.model_type}: its code can't do with other widths ({failure}); drop blocks of this model "
            "instead"
        )


def _failure(config: Any, trust_remote_code: bool) -> str | None:
    """What a forward of a few fake tokens raises."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    try:
        with silent(), FakeTensorMode(allow_non_fake_inputs=True), torch.device("cpu"), torch.no_grad():
            model = auto_class(config).from_config(config, trust_remote_code=trust_remote_code).eval()
            model(input_ids=torch.zeros(1, 3, dtype=torch.long), use_cache=False)
    except Exception as error:  # whatever an architecture's code does with shapes that don't fit
        return str(error).strip().splitlines()[0]
    return None


def target_widths(before: Any, groups: Sequence[Groups], counts: Counts, bias: bool) -> list[dict[str, list[int]]]:
    """The linear layers of every block, as they are to be."""
    found = [linear_widths(block) for block in find_anatomy(before).blocks]
    for g in groups:
        for tensor in g.tensors:
            path, _, leaf = tensor.name.rpartition(".")
            if leaf == "weight":
                found[g.block][path][0 if tensor.axis else 1] = counts[g.block, g.part] * tensor.each
        if _gets_bias(g, counts, bias):
            found[g.block][g.output][2] = 1
    return found


def _gets_bias(g: Groups, counts: Counts, bias: bool) -> bool:
    return bias and counts[g.block, g.part] < g.count


def _blocks(groups: Sequence[Groups]) -> list[int]:
    return sorted({g.block for g in groups})


def _plain(before: Any, groups: Sequence[Groups], counts: Counts, bias: bool, trust_remote_code: bool) -> Form | str:
    """The plain form, or why there is none."""
    config = before.config
    if plain_config(config) is not config:
        return "the model is of our own type already"
    n_blocks = len(find_anatomy(before).blocks)
    fields: dict[str, Any] = {}
    for part in (ATTENTION, FFN):
        here = [g for g in groups if g.part == part]
        left = {counts[g.block, g.part] for g in here}
        if len(here) != n_blocks or len(left) != 1:
            return f"blocks keep {min(left, default=0)} to {max(left, default=0)} {WORDS[part]}"
        fields |= _said(here[0], left.pop())
    if bias:
        narrower = {g.part for g in groups if counts[g.block, g.part] < g.count}
        fields |= {name: True for part, name in BIASES.items() if part in narrower and hasattr(config, name)}
    try:
        said = type(config).from_dict(config.to_dict() | fields)
        made = meta_model(said, trust_remote_code)
    except (ShortLMError, ValueError, TypeError) as error:  # what the config's own validators refuse
        return str(error).strip().splitlines()[-1].strip()
    except Exception as error:  # strict dataclasses raise errors of their own kind
        return str(error).strip().splitlines()[-1].removeprefix("ValueError:").strip()
    target = target_widths(before, groups, counts, bias)
    added: dict[int, list[str]] = {}
    for i, block in enumerate(find_anatomy(made).blocks):
        if reason := _other(linear_widths(block), target[i]):
            return reason
        old = dict(find_anatomy(before).blocks[i].named_parameters())
        added[i] = [name for name, _ in block.named_parameters() if name not in old]
    return Form("plain", said, added)


def _said(g: Groups, left: int) -> dict[str, Any]:
    """How a config says it."""
    if g.part == FFN:
        return {"intermediate_size": left}
    heads = {"num_attention_heads": left * g.query_heads, "num_key_value_heads": left}
    return heads | {"head_dim": g.inputs // g.query_heads}


def _other(made: Mapping[str, list[int]], target: Mapping[str, list[int]]) -> str | None:
    """What differs between the layers that a config makes and those that are needed; more biases are no harm."""
    for path, (inputs, outputs, bias) in target.items():
        if made.get(path, [0, 0, 0])[:2] != [inputs, outputs]:
            return f"{path} would be {made.get(path, [0, 0, 0])[:2]}, not {[inputs, outputs]}"
        if bias and not made[path][2]:
            return f"it has no bias for {path}"
    return None


def config_json(config: Any) -> str:
    """As save_pretrained writes it."""
    with scratch_folder("config") as folder:
        with library_errors(ModelError, f"{config.model_type}: its config can't be written"):
            config.save_pretrained(folder)
        return (folder / "config.json").read_text(encoding="utf-8")


def sayable_heads(before: Any, groups: Sequence[Groups], wanted: int) -> int:
    """The number of KV heads nearest to `wanted` that the architecture's config can say, more before fewer.

    Raises ModelError if there is none.
    """
    heads = [g for g in groups if g.part == ATTENTION]
    config, most = before.config, max((g.count for g in heads), default=0)
    for number in sorted(range(1, most + 1), key=lambda n: (abs(n - wanted), -n)):
        try:
            type(config).from_dict(config.to_dict() | _said(heads[0], number))
        except Exception:  # whatever a config's own validators raise
            continue
        return number
    raise ModelError(f"{config.model_type}: no number of heads can be said by its config; give --as shortlm")
