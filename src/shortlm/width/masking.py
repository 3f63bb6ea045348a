"""The dense model with heads and channels masked: what the narrower one has to compute.

What goes adds nothing to an output projection, since its inputs there are zeros; where the narrower model has a bias
for it, its mean is added.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

import torch

from shortlm.model import Anatomy
from shortlm.width.groups import Groups, Kept

Means: TypeAlias = Mapping[tuple[int, str], torch.Tensor]  # block, part -> mean of each input of the output projection


def removed_inputs(groups: Groups, kept: Kept) -> list[int]:
    """Of the output projection: those of the groups that go."""
    stays = set(kept[groups.block, groups.part])
    return groups.tensors[-1].indices([k for k in range(groups.count) if k not in stays])


def bias_of(weight_DF: torch.Tensor, mean_F: torch.Tensor, removed: Sequence[int]) -> torch.Tensor:
    """What the removed inputs add on average, in float32 (FLAP, section 3.3): W' mean."""
    columns = torch.tensor(removed, dtype=torch.long, device=weight_DF.device)
    return weight_DF[:, columns].float() @ mean_F.to(weight_DF.device)[columns].float()


@contextmanager
def masked(
    anatomy: Anatomy, groups: Sequence[Groups], kept: Kept, means: Means | None = None
) -> Generator[None, None, None]:
    """Inside, the blocks compute without the groups that go, and with their means where these are given."""
    with ExitStack() as hooks:
        for g in groups:
            if removed := removed_inputs(g, kept):
                module: Any = anatomy.blocks[g.block].get_submodule(g.output)
                mean_F = means[g.block, g.part] if means is not None else None
                hooks.callback(module.register_forward_pre_hook(_without(removed)).remove)
                if mean_F is not None:
                    hooks.callback(module.register_forward_hook(_adding(mean_F, removed)).remove)
        yield


def _without(removed: Sequence[int]) -> Callable[..., Any]:
    def hook(module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        x = args[0].clone()
        x[..., torch.tensor(removed, dtype=torch.long, device=x.device)] = 0
        return (x, *args[1:])

    return hook


def _adding(mean_F: torch.Tensor, removed: Sequence[int]) -> Callable[..., Any]:
    def hook(module: Any, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        return output + bias_of(module.weight, mean_F, removed).to(output.dtype)

    return hook
