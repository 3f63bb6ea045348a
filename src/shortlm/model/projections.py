"""The output projection of a branch: the linear layer by which attention or FFN write the residual stream."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

from shortlm.errors import ModelError
from shortlm.model.anatomy import Anatomy
from shortlm.units import ATTENTION, FFN

# What a branch's output leaves it by, wherever that is in the branch: the last part of a parameter's path, or a module.
OUTPUTS = {"o_proj", "out_proj", "c_proj", "dense", "wo", "down_proj", "down_proj_bias", "dense_4h_to_h", "fc2"}
OUTPUTS |= {"fc_out", "w2", "output_linear"}


class Projection(NamedTuple):
    """A linear layer of a block, by its path inside; its weight as it is applied is F x D."""

    path: str
    module: Any
    stored_as_applied: bool  # F x D (GPT-2's Conv1D); else D x F

    @property
    def width(self) -> int:
        """F: its inputs."""
        return self.module.weight.shape[0 if self.stored_as_applied else 1]

    def as_stored(self, weight_FD: torch.Tensor) -> torch.Tensor:
        """As the module and the files hold it."""
        return weight_FD if self.stored_as_applied else weight_FD.T

    def applied(self) -> torch.Tensor:
        """The weight, F x D."""
        return self.as_stored(self.module.weight)


def output_projection(anatomy: Anatomy, i: int, part: str) -> Projection | None:
    """That of block i's attention or FFN; None if the block has no such branch.

    Raises ModelError where it is not one linear layer (experts).
    """
    block, names = anatomy.blocks[i], {ATTENTION: anatomy.attention, FFN: anatomy.ffn}[part][i]
    if not names:
        return None
    inside = [(f"{n}.{path}".rstrip("."), m) for n in names for path, m in block.get_submodule(n).named_modules()]
    found = [(p, m) for p, m in inside if p.rpartition(".")[2] in OUTPUTS and _is_linear(m)]
    if len(found) != 1:
        raise ModelError(
            f"{type(block).__name__}: the {part} of block {i} has {len(found) or 'no'} output "
            f"projection{'s' if len(found) > 1 else ''} that can be solved for (experts?); this "
            "architecture can't be repaired or narrowed yet"
        )
    path, module = found[0]
    return Projection(path, module, type(module).__name__ == "Conv1D")


def _is_linear(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D") and weight is not None
