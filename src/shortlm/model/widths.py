"""Linear layers of a model that are narrower than its config says, or have a bias that it doesn't name.

As our own type's config says it: {"3": {"self_attn.q_proj": [32, 16, 0]}}, by block and layer its inputs, its outputs,
and whether it has a bias.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from shortlm.model.anatomy import MOST_BLOCKS, find_anatomy

Widths = dict[str, dict[str, list[int]]]  # block -> linear layer -> [inputs, outputs, 1 with a bias]
MOST_INPUTS = 10_000_000


def narrow(model: Any, widths: Widths) -> None:
    """Replace these layers of `model` by ones of other widths, without values. Raises ValueError for what it doesn't
    have, or has smaller.
    """
    blocks = find_anatomy(model).blocks if widths else []
    for i, layers in widths.items():
        if int(i) >= len(blocks):
            raise ValueError(f"widths: names block {i} of a model of {len(blocks)}")
        for path, (inputs, outputs, bias) in layers.items():
            replaced = dict(blocks[int(i)].named_modules()).get(path)
            if not isinstance(replaced, nn.Linear):
                raise ValueError(f"widths: block {i} of {type(blocks[int(i)]).__name__} has no linear layer {path!r}")
            if inputs > replaced.in_features or outputs > replaced.out_features:
                raise ValueError(f"widths: {path!r} of block {i} is {replaced.in_features} x {replaced.out_features}")
            weight = replaced.weight
            made = nn.Linear(inputs, outputs, bool(bias), device=weight.device, dtype=weight.dtype)
            blocks[int(i)].set_submodule(path, made.requires_grad_(weight.requires_grad))


def linear_widths(block: nn.Module) -> dict[str, list[int]]:
    """Those of all linear layers of a block."""
    layers = [(path, m) for path, m in block.named_modules() if isinstance(m, nn.Linear)]
    return {path: [m.in_features, m.out_features, int(m.bias is not None)] for path, m in layers}


def say_widths(widths: Any) -> bool:
    """Whether it maps blocks to layers to inputs, outputs and 0 or 1."""
    if not isinstance(widths, dict) or not all(isinstance(layers, dict) for layers in widths.values()):
        return False
    if not all(i.isdecimal() and i.isascii() and int(i[:9]) < MOST_BLOCKS for i in widths):
        return False
    return all(_is_width(width) for layers in widths.values() for width in layers.values())


def _is_width(width: Any) -> bool:
    if not isinstance(width, list) or len(width) != 3 or not all(type(number) is int for number in width):
        return False
    return all(1 <= number <= MOST_INPUTS for number in width[:2]) and width[2] in (0, 1)
