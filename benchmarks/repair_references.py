"""Two repairs that leave no plain checkpoint: between the blocks around a gap a matrix multiplies the state.

`linear-patch` (LinearPatch, 2505.24680, without its distillation): x <- x H D H', where H is a rotation and D scales
every rotated channel to the size that it has in the dense model. `residual-map` (as Ghosted Layers, 2605.15491):
x <- x + x M, where M is least squares with a ridge that validation windows choose. Gaps are filled in order, each on
the model as patched so far; sums leave out what the verb leaves out.

Shapes: B sequences, T tokens, D hidden, N tokens that count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from shortlm.model import OpenModel
from shortlm.recipe import RepairSettings
from shortlm.repair.counting import counting
from shortlm.repair.normal_equations import NormalEquations
from shortlm.sweep import BlockCaller, Side
from shortlm.text import Windows

BATCH = 40  # windows
Pairs = list[tuple[torch.Tensor, torch.Tensor]]  # of every batch: states of the patched and of the dense model, N x D
Fit = Callable[[Pairs, Pairs, list[float]], torch.Tensor]


def patched(
    cut: OpenModel, dense: OpenModel, kept: list[int], fit: Windows, validation: Windows, how: RepairSettings
) -> None:
    """The open cut model gets a hook before every block that a gap is before; `kept` are its blocks' dense indices."""
    to_fit = fit.batches(BATCH)
    batches = to_fit + validation.batches(BATCH)
    ours, theirs = (Side.of(BlockCaller(m.model, m.anatomy), batches) for m in (cut, dense))
    at = 0
    for j, place in enumerate(kept):
        for i in range(at, place):
            theirs.pass_block(i)
        if j and place != kept[j - 1] + 1:
            pairs = [counted(ours, theirs, k) for k in range(len(batches))]
            matrix_DD = METHODS[how.method](pairs[: len(to_fit)], pairs[len(to_fit) :], how.ridges)
            cut.anatomy.blocks[j].register_forward_pre_hook(multiplies_by(matrix_DD))
        at = place
        ours.pass_block(j)


def counted(ours: Side, theirs: Side, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Both models' states of the tokens that count."""
    counted_BT = counting(theirs.states[k], theirs.batches[k])
    return ours.states[k][counted_BT].double(), theirs.states[k][counted_BT].double()


def multiplies_by(matrix_DD: torch.Tensor) -> Callable[..., Any]:
    """A hook before a block: its state times a matrix."""

    def hook(module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0] @ matrix_DD.to(args[0].dtype), *args[1:])

    return hook


def linear_patch(fit: Pairs, validation: Pairs, ridges: list[float]) -> torch.Tensor:
    """H D H'; nothing is chosen by validation."""
    rotation_DD = rotation(fit[0][0].shape[1])
    x_D, y_D = (sum((pair[k] @ rotation_DD).abs().sum(0) for pair in fit) for k in (0, 1))
    return rotation_DD @ torch.diag(y_D / x_D) @ rotation_DD.T


def residual_map(fit: Pairs, validation: Pairs, ridges: list[float]) -> torch.Tensor:
    """I + M, with the ridge, or no change, that brings the validation tokens nearest."""
    width = fit[0][0].shape[1]
    equations = NormalEquations(width, width, fit[0][0].device)
    for x_ND, y_ND in fit:
        equations.add(x_ND, y_ND - x_ND)
    identity_DD = torch.eye(width, dtype=torch.float64)
    changes = [torch.zeros_like(identity_DD), *(equations.solved(ridge) for ridge in ridges)]
    found = [identity_DD + change_DD for change_DD in changes if change_DD is not None]
    return min(found, key=lambda m_DD: sum(float((x_ND @ m_DD - y_ND).square().sum()) for x_ND, y_ND in validation))


def rotation(width: int) -> torch.Tensor:
    """Sylvester's Hadamard matrix, of length 1 in each column; where the width is no power of 2, a drawn rotation."""
    if width & (width - 1):
        drawn_DD = torch.randn(width, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        return torch.linalg.qr(drawn_DD).Q
    rotation_DD = torch.ones(1, 1, dtype=torch.float64)
    while len(rotation_DD) < width:
        rotation_DD = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64), rotation_DD)
    return rotation_DD / width**0.5


METHODS: dict[str, Fit] = {"linear-patch": linear_patch, "residual-map": residual_map}
