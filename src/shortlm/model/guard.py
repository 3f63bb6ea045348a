"""The generic guard: does the cut config build the very blocks that were kept?

Both models are built on the meta device (no memory) and compared block by block: classes, parameter
shapes, plain attributes; then everything outside the blocks. It decides for architectures nobody listed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from shortlm.errors import ModelError, library_errors
from shortlm.model.anatomy import Anatomy, find_anatomy

PLAIN = (bool, int, float, str, type(None))


def meta_model(config: Any, trust_remote_code: bool = False) -> nn.Module:
    """The causal LM of `config` without memory for its weights. Raises ModelError if there is none."""
    from transformers import AutoModelForCausalLM

    what = f"{config.model_type}: no causal LM can be built from this config"
    with library_errors(ModelError, what), torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)


def guard(config: Any, cut: Any, kept: list[int], trust_remote_code: bool = False) -> None:
    """Raise ModelError, naming the block and what differs, unless `cut` rebuilds the blocks `kept` of `config`."""
    before, after = (meta_model(c, trust_remote_code) for c in (config, cut))
    old, new = find_anatomy(before), find_anatomy(after)
    for position, original in enumerate(kept):
        difference = _difference(old.blocks[original], new.blocks[position], original, position)
        if difference:
            raise ModelError(
                f"{config.model_type}: can't be cut soundly: block {original} would become another block "
                f"at place {position} ({difference})"
            )
    _compare_outside(config.model_type, before, after, old)


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
            is_place = type(value) is int and type(other) is int and (value, other) == (original, position)
            if value != other and not is_place:
                return f"{name or 'block'}.{key}: {value} against {other}"
    return None


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return {name: tuple(tensor.shape) for name, tensor in tensors}


def _plain(module: nn.Module) -> dict[str, Any]:
    """Attributes that say something and are no module, tensor or config; an index may differ with the place."""
    return {k: v for k, v in vars(module).items() if isinstance(v, PLAIN) and not k.startswith("_")}


def _compare_outside(name: str, before: nn.Module, after: nn.Module, anatomy: Anatomy) -> None:
    inside = anatomy.blocks_path + "."
    old = {n: s for n, s in _shapes(before).items() if not n.startswith(inside)}
    new = {n: s for n, s in _shapes(after).items() if not n.startswith(inside)}
    if old != new:
        different = next(n for n in (*old, *new) if old.get(n) != new.get(n))
        raise ModelError(f"{name}: can't be cut soundly: '{different}' outside the blocks depends on their number")
