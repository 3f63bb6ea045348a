"""Least squares by sums over tokens: Z'Z and Z'E in float64, added up over processes, solved by Cholesky.

torch's own Cholesky and its solution hold three matrices of F x F. Here the factor is made in the lower triangle of
Z'Z, whose upper triangle keeps what was there, so that the next ridge can begin anew: one matrix is all.

Shapes: N tokens, F inputs, D outputs, P a panel of them.
"""

from __future__ import annotations

import torch

from shortlm.errors import RepairError
from shortlm.sweep import Ranks, widest

PANEL = 1024  # rows and columns that are factored at a time


class NormalEquations:
    """The sums of one weight; a change of it that takes E from Z, as far as a ridge lets it."""

    def __init__(self, inputs: int, outputs: int, device: torch.device, panel: int = PANEL):
        kind = widest(device)
        self.gram_FF = torch.zeros(inputs, inputs, dtype=kind, device=device)
        self.cross_FD = torch.zeros(inputs, outputs, dtype=kind, device=device)
        self.panels = [slice(s, min(s + panel, inputs)) for s in range(0, inputs, panel)]
        self.tokens = 0

    def add(self, z_NF: torch.Tensor, e_ND: torch.Tensor) -> None:
        """More tokens: their inputs, and what their outputs lack."""
        z_NF, e_ND = z_NF.to(self.gram_FF.dtype), e_ND.to(self.gram_FF.dtype)
        for p in self.panels:  # Z'Z is symmetric: its upper triangle is enough
            self.gram_FF[p, p.start :].addmm_(z_NF[:, p].T, z_NF[:, p.start :])
        self.cross_FD.addmm_(z_NF.T, e_ND)
        self.tokens += len(z_NF)

    def all_reduce(self, ranks: Ranks) -> None:
        """The sums over all processes, once all tokens are there."""
        ranks.all_reduce(self.gram_FF)
        ranks.all_reduce(self.cross_FD)
        self.tokens = int(ranks.total(self.tokens))

    def solved(self, ridge: float) -> torch.Tensor | None:
        """(Z'Z + a I)^-1 Z'E with a = ridge * mean(diag(Z'Z)), F x D; None where the system is singular."""
        kept = [self.gram_FF[p, p].clone() for p in self.panels]
        self._restore(kept)
        self.gram_FF.diagonal().add_(ridge * float(self.gram_FF.diagonal().mean()))
        try:
            solution_FD = self._substituted() if self._factored() else None
        finally:
            self._restore(kept)
        return solution_FD if solution_FD is not None and bool(torch.isfinite(solution_FD).all()) else None

    def _factored(self) -> bool:
        """L of L L' in the lower triangle; False where it doesn't exist. The diagonal panels are overwritten whole."""
        gram_FF = self.gram_FF
        for n, p in enumerate(self.panels):
            lower_PP, failed = torch.linalg.cholesky_ex(gram_FF[p, p])
            if int(failed):
                return False
            gram_FF[p, p] = lower_PP
            if p.stop == len(gram_FF):
                break
            below = slice(p.stop, None)
            gram_FF[below, p] = torch.linalg.solve_triangular(lower_PP, gram_FF[below, p].T, upper=False).T
            for q in self.panels[n + 1 :]:
                rest = slice(q.start, None)
                gram_FF[rest, q].addmm_(gram_FF[rest, p], gram_FF[q, p].T, alpha=-1)
        return True

    def _substituted(self) -> torch.Tensor:
        """L^-T L^-1 Z'E, a panel after the other."""
        gram_FF, x_FD = self.gram_FF, self.cross_FD.clone()
        for p in self.panels:
            x_FD[p] = torch.linalg.solve_triangular(gram_FF[p, p], x_FD[p], upper=False)
            x_FD[p.stop :].addmm_(gram_FF[p.stop :, p], x_FD[p], alpha=-1)
        for p in reversed(self.panels):
            x_FD[p].addmm_(gram_FF[p.stop :, p].T, x_FD[p.stop :], alpha=-1)
            x_FD[p] = torch.linalg.solve_triangular(gram_FF[p, p].T, x_FD[p], upper=True)
        return x_FD

    def _restore(self, kept: list[torch.Tensor]) -> None:
        """Z'Z whole, from its upper triangle and the diagonal panels that were kept."""
        for p, was_PP in zip(self.panels, kept, strict=True):
            self.gram_FF[p, p] = was_PP
            self.gram_FF[p.stop :, p] = self.gram_FF[p, p.stop :].T


def refuse_singular(where: str, tokens: int, unknowns: int) -> RepairError:
    """What is said where no ridge gives a solution."""
    return RepairError(
        f"{where}: {tokens:,} tokens don't determine {unknowns:,} unknowns (a singular system); give more "
        "--calibration windows, or a larger ridge"
    )
