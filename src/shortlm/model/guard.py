"""The generic guard: does the cut config build the very blocks that were kept?

Both models are built on the meta device (no memory) and compared block by block: classes, parameter
shapes, plain attributes; then everything outside the blocks. It decides for architectures nobody listed.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from shortlm.errors import ModelError, library_errors
from shortlm.model.anatomy import Anatomy, find_anatomy
from shortlm.model.language import auto_class

# Says what the block behind is, and whether to hand that something: no part of a block's own maths.
OF_THE_NEXT = {"next_skip_topk"}
PLAIN = (bool, int, float, str, type(None))


def meta_model(config: Any, trust_remote_code: bool = False) -> nn.Module:
    """The model of `config` without memory for its weights. Raises ModelError if there is none."""
    what = f"{config.model_type}: no causal LM can be built from this config"
    with library_errors(ModelError, what), torch.device("meta"):
        return auto_class(config).from_config(config, trust_remote_code=trust_remote_code)


def guard(config: Any, cut: Any, kept: list[int], trust_remote_code: bool = False) -> dict[str, int]:
    """The tensors outside the blocks that have a part for every block, and the axis which these parts lie along.

    Raises ModelError, naming the block and what differs, unless `cut` rebuilds the blocks `kept` of `config`.
    """
    before, after = (meta_model(c, trust_remote_code) for c in (config, cut))
    old, new = find_anatomy(before), find_anatomy(after)
    for position, original in enumerate(kept):
        difference = _difference(old.blocks[original], new.blocks[position], original, position)
        if difference:
            raise ModelError(
                f"{config.model_type}: can't be cut soundly: block {original} would become another block "
                f"at place {position} ({difference})"
            )
    return _sliced_outside(config.model_type, before, after, old)


def _difference(old: nn.Module, new: nn.Module, original: int, position: int) -> str | None:
    before, after = dict(old.named_modules()), dict(new.named_modules())
    if before.keys() != after.keys():
        return f"modules differ: {sorted(before.keys() ^ after.keys())[0]}"
    shapes, new_shapes = _shapes(old), _shapes(new)
    if shapes != new_shapes:
        return f"shapes differ: {next(n for n in shapes if shapes[n] != new_shapes.get(n))}"
    for name, module in before.items():
        if type(module) is not type(after[name]):
            return f"{name or 'block'}: {type(module).__name__} against {type(after[name]).__name__}"
        for key, value in _plain(module).items():
            other = vars(after[name]).get(key)
            if value != other and not _says_the_same(value, other, original, position):
                return f"{name or 'block'}.{key}: {value} against {other}"
    return None


def _says_the_same(value: Any, other: Any, original: int, position: int) -> bool:
    """Whether two numbers are the block's old and new place (or those of its two attentions), or differ by rounding."""
    if type(value) is float and type(other) is float:
        return math.isclose(value, other, rel_tol=1e-12)
    if type(value) is not int or type(other) is not int:
        return False
    return (value, other) == (original, position) or (
        value - 2 * original == other - 2 * position and value - 2 * original in (0, 1)
    )


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return {name: tuple(tensor.shape) for name, tensor in tensors}


def _plain(module: nn.Module) -> dict[str, Any]:
    """Attributes that say something and are no module, tensor or config; an index may differ with the place."""
    return {
        k: v for k, v in vars(module).items() if isinstance(v, PLAIN) and not k.startswith("_") and k not in OF_THE_NEXT
    }


def _sliced_outside(name: str, before: nn.Module, after: nn.Module, anatomy: Anatomy) -> dict[str, int]:
    """The axis of each tensor outside the blocks that has an equal part for every block (Gemma 4's per-layer inputs).

    Raises ModelError for one that depends on the number of blocks in another way.
    """
    inside = anatomy.blocks_path + "."
    old = {n: s for n, s in _shapes(before).items() if not n.startswith(inside)}
    new = {n: s for n, s in _shapes(after).items() if not n.startswith(inside)}
    # a table of rotary frequencies for a kind of attention of which no block is left is in no file
    unsaved = old.keys() - before.state_dict().keys()
    old = {n: s for n, s in old.items() if n in new or n not in unsaved}
    count = (len(anatomy.blocks), len(find_anatomy(after).blocks))
    sliced = {}
    for tensor in [n for n in {**old, **new} if old.get(n) != new.get(n)]:
        axes = [
            a
            for a, sizes in enumerate(zip(old.get(tensor, ()), new.get(tensor, ()), strict=False))
            if len({*sizes}) > 1
        ]
        if (
            len(axes) != 1
            or len(old[tensor]) != len(new[tensor])
            or not _per_block(old[tensor], new[tensor], axes[0], count)
        ):
            raise ModelError(f"{name}: can't be cut soundly: '{tensor}' outside the blocks depends on their number")
        sliced[tensor] = axes[0]
    return sliced


def _per_block(old: tuple[int, ...], new: tuple[int, ...], axis: int, count: tuple[int, int]) -> bool:
    """Whether an axis has as many entries for every block before as after."""
    return old[axis] % count[0] == new[axis] % count[1] == 0 and old[axis] // count[0] == new[axis] // count[1]
