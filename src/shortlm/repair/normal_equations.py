"""Least squares by sums over tokens: Z'Z and Z'E in float64, added up over processes, solved by Cholesky.

Shapes: N tokens, F inputs, D outputs.
"""

from __future__ import annotations

import torch

from shortlm.errors import RepairError
from shortlm.sweep import Ranks, widest


class NormalEquations:
    """The sums of one weight; a change of it that takes E from Z, as far as a ridge lets it."""

    def __init__(self, inputs: int, outputs: int, device: torch.device):
        kind = widest(device)
        self.gram_FF = torch.zeros(inputs, inputs, dtype=kind, device=device)
        self.cross_FD = torch.zeros(inputs, outputs, dtype=kind, device=device)
        self.tokens = 0

    def add(self, z_NF: torch.Tensor, e_ND: torch.Tensor) -> None:
        """More tokens: their inputs, and what their outputs lack."""
        z_NF, e_ND = z_NF.to(self.gram_FF.dtype), e_ND.to(self.gram_FF.dtype)
        self.gram_FF.addmm_(z_NF.T, z_NF)
        self.cross_FD.addmm_(z_NF.T, e_ND)
        self.tokens += len(z_NF)

    def all_reduce(self, ranks: Ranks) -> None:
        """The sums over all processes."""
        ranks.all_reduce(self.gram_FF)
        ranks.all_reduce(self.cross_FD)
        self.tokens = int(ranks.total(self.tokens))

    def solved(self, ridge: float) -> torch.Tensor | None:
        """(Z'Z + a I)^-1 Z'E with a = ridge * mean(diag(Z'Z)), F x D; None where the system is singular."""
        diagonal_F = self.gram_FF.diagonal()
        before_F = diagonal_F.clone()
        diagonal_F += ridge * float(before_F.mean())
        factor_FF, failed = torch.linalg.cholesky_ex(self.gram_FF)
        diagonal_F.copy_(before_F)
        if int(failed):
            return None
        solution_FD = torch.cholesky_solve(self.cross_FD, factor_FF)
        return solution_FD if bool(torch.isfinite(solution_FD).all()) else None


def refuse_singular(where: str, tokens: int, unknowns: int) -> RepairError:
    """What is said where no ridge gives a solution."""
    return RepairError(
        f"{where}: {tokens:,} tokens don't determine {unknowns:,} unknowns (a singular system); give more "
        "--calibration windows, or a larger ridge"
    )
