"""Statistics over sequences: standard errors and the bootstrap.

Shapes: L values of interest (blocks), S sequences, R resamples.
"""

from __future__ import annotations

import torch

AT_ONCE = 2**22  # sequences of all resamples that are drawn together


def resampled(values_LS: torch.Tensor, weights_S: torch.Tensor, resamples: int, seed: int) -> torch.Tensor:
    """Weighted means of bootstrap resamples of the sequences, R x L.

    Drawn some at a time, so that a million sequences don't take gigabytes; the draws are the same.
    """
    generator, count = torch.Generator().manual_seed(seed), len(weights_S)
    rows = max(1, AT_ONCE // count)
    parts = [_drawn(values_LS, weights_S, min(rows, resamples - i), generator) for i in range(0, resamples, rows)]
    return torch.cat(parts) if parts else values_LS.new_zeros(0, len(values_LS))


def _drawn(
    values_LS: torch.Tensor, weights_S: torch.Tensor, resamples: int, generator: torch.Generator
) -> torch.Tensor:
    picks_RS = torch.randint(len(weights_S), (resamples, len(weights_S)), generator=generator)
    times_RS = torch.zeros(picks_RS.shape, dtype=weights_S.dtype).scatter_add_(
        1, picks_RS, torch.ones_like(picks_RS, dtype=weights_S.dtype)
    )
    weights_RS = times_RS * weights_S
    return weights_RS @ values_LS.T / weights_RS.sum(1, keepdim=True)


def mean_stderr(values_LS: torch.Tensor, weights_S: torch.Tensor) -> torch.Tensor:
    """Standard error of the weighted mean over sequences (weights sum to 1), by its linearisation; L, NaN if S is 1."""
    count = len(weights_S)
    deviations_LS = (values_LS - (values_LS @ weights_S)[:, None]) * weights_S
    return (deviations_LS.square().sum(1) * (count / (count - 1) if count > 1 else torch.nan)).sqrt()
