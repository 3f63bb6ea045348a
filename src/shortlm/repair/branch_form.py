"""What a block makes of its branch's output: adds it, perhaps times a number, or norms it first (Gemma 2, OLMo 2).

A block that adds: out = r + s m, so m has to change by (Y - out) / s. A block that norms: out = r + g * m / rms(m), in
which the size of m is lost. m should point where the wanted branch u = (Y - r) / g points, and keep its size, so that
one weight for all tokens can give it: it has to change by u rms(m) / rms(u) - m.

Shapes: B sequences, T tokens, D hidden.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from shortlm.model import Projection
from shortlm.sweep import Batch, Side, noted

PROBE = 0.125


@dataclass(frozen=True)
class BranchForm:
    """`slope`: s of a block that adds; None: it norms."""

    slope: float | None

    @classmethod
    def of(cls, side: Side, j: int, decision: int, projection: Projection) -> BranchForm:
        """Found out by two calls of block j, on one sequence: the output is moved by the same in all places."""
        alone, caller = side.batches[0].alone(side.caller, 0), side.caller
        h_1TD = side.states[0][:1]
        with torch.no_grad(), noted(projection.module) as seen:
            before_1TD = caller(j, h_1TD, alone, decision).double()
            size = float(seen["output"].float().abs().mean()) or 1.0
        moved = torch.full_like(seen["output"], PROBE * size)
        moved[..., ::2] *= -1  # a shift that is the same everywhere is what norms with means don't see
        with torch.no_grad(), noted(projection.module, moved):
            change_1TD = caller(j, h_1TD, alone, decision).double() - before_1TD
        slopes_1TD = change_1TD / moved.double().view(change_1TD.shape)
        slope = float(slopes_1TD.median())
        room = 64 * torch.finfo(before_1TD.new_tensor(0, dtype=h_1TD.dtype).dtype).eps
        room *= float(before_1TD.abs().max()) / (PROBE * size)
        return cls(slope if slope and bool(((slopes_1TD - slope).abs() <= room + 1e-3 * abs(slope)).all()) else None)

    def lacking(
        self, out_BTD: torch.Tensor, without_BTD: torch.Tensor | None, m_BTD: torch.Tensor, wanted_BTD: torch.Tensor
    ) -> torch.Tensor:
        """By how much m has to change for the block to come to the wanted state; `without` the branch it is r."""
        if self.slope is not None:
            return (wanted_BTD.double() - out_BTD.double()) / self.slope
        assert without_BTD is not None
        m, r = m_BTD.double(), without_BTD.double()
        rms = m.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-12)
        branch, direction = out_BTD.double() - r, m / rms
        gain_D = (branch * direction).sum((0, 1)) / direction.square().sum((0, 1)).clamp_min(1e-12)
        gain_D = torch.where(gain_D.abs() < 1e-6, torch.full_like(gain_D, 1e-6), gain_D)
        wanted = (wanted_BTD.double() - r) / gain_D
        size = wanted.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-12)
        return wanted / size * rms - m


def shaped(m: torch.Tensor, batch: Batch) -> torch.Tensor:
    """B x T x width of what some architectures flatten (OPT's FFN)."""
    return m.view(*batch.ids_BT.shape, m.shape[-1])


def norm_behind(side: Side, j: int, projection: Projection) -> str | None:
    """The path, inside block j, of what norms the output of this projection; None if nothing does.

    Found out by one call: it is the module that is called with that very tensor.
    """
    found: list[str] = []
    output: list[torch.Tensor] = []  # held, so that no other tensor comes to lie where it was

    def note(module: Any, args: Any, result: Any) -> None:
        output.append(result)

    def compare(name: str) -> Any:
        return lambda module, args: found.append(name) if args and output and _is_same(args[0], output[-1]) else None

    hooks = [projection.module.register_forward_hook(note)]
    hooks += [
        module.register_forward_pre_hook(compare(name))
        for name, module in side.caller.blocks[j].named_modules()
        if any(True for _ in module.parameters(recurse=False)) and module is not projection.module
    ]
    try:
        side.caller(j, side.states[0][:1], side.batches[0].alone(side.caller, 0))
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


def _is_same(value: Any, output: torch.Tensor) -> bool:
    return isinstance(value, torch.Tensor) and value.data_ptr() == output.data_ptr()
