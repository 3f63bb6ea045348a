"""Statistics over sequences, questions and runs: standard errors, tests, intervals, the bootstrap.

The distributions are scipy's, from scipy.special, which imports in a third of the time of scipy.stats. Both and torch
are imported where they are used: `--help` needs none of them, and the report is drawn without torch.

Shapes: L values of interest (blocks), S sequences, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

AT_ONCE = 2**22  # sequences of all resamples that are drawn together
CONFIDENCE = 0.95


def mean_stderr(values_LS: Any, weights_S: Any = None) -> Any:
    """Standard errors of L means over sequences, of arrays or tensors; NaN if S is 1.

    By the linearisation of the weighted mean; the weights sum to 1, without them all sequences count the same. For a
    paired comparison the values are the differences.
    """
    count = values_LS.shape[1]
    weights = 1 / count if weights_S is None else weights_S
    deviations_LS = (values_LS - (values_LS * weights).sum(1)[:, None]) * weights
    return ((deviations_LS * deviations_LS).sum(1) * (count / (count - 1) if count > 1 else math.nan)) ** 0.5


def stderr(values: Sequence[float], weights: Sequence[float] | None = None) -> float | None:
    """The same of the mean of plain numbers, of any size; None for fewer than two."""
    import numpy

    if len(values) < 2:
        return None
    largest = max(map(abs, values)) or 1.0  # no square overflows
    found = mean_stderr(numpy.array([values]) / largest, None if weights is None else numpy.array(weights))
    return float(found[0]) * largest


def independent_stderr(errors: Sequence[float | None]) -> float | None:
    """Of a sum or difference of independent values with these standard errors; None if one is not known."""
    known = [error for error in errors if error is not None]
    return math.hypot(*known) if len(known) == len(errors) else None


def mcnemar(won: int, lost: int) -> float:
    """p-value of McNemar's exact test: two-sided binomial with probability 1/2 on the questions where models differ."""
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(won, lost), won + lost, 0.5)))


def normal_p(value: float, error: float | None) -> float | None:
    """Two-sided p-value of a value with this standard error, by the normal distribution; None without one."""
    if error is None:
        return None
    if error == 0:
        return 1.0 if value == 0 else 0.0
    return math.erfc(abs(value) / error / math.sqrt(2))


def student_width(freedom: int) -> float:
    """Standard errors on either side of a mean that make its 95 % interval (Student's t); infinite without freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) if freedom > 0 else math.inf


def order_rank(count: int) -> int:
    """The rank k for which the k-th smallest and k-th largest of `count` values enclose the median with 95 %; 0: none.

    A value is below the median as a coin falls, so the two fail with twice the binomial's lower tail.
    """
    from scipy.special import bdtr

    return int((2 * bdtr(range(count), count, 0.5) <= 1 - CONFIDENCE).sum())


def rank_agreement(ranks_RL: torch.Tensor, own_L: torch.Tensor) -> float:
    """Mean Kendall tau between each of R orders and our own; orders that come again are compared once."""
    from scipy.stats import kendalltau

    if len(own_L) < 2:
        return 1.0
    orders, counts = ranks_RL.unique(dim=0, return_counts=True)
    taus = [kendalltau(order, own_L.numpy(), method="asymptotic").statistic for order in orders.numpy()]
    mean = math.fsum(tau * int(n) for tau, n in zip(taus, counts, strict=True)) / len(ranks_RL)
    return round(mean, 12)  # scipy's tau of equal orders may be 1 less a rounding


def kendall_tau(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Kendall's tau-b of two orders of the same things; None where one of them has no order."""
    from scipy.stats import kendalltau

    if len(set(first)) < 2 or len(set(second)) < 2:
        return None
    return round(float(kendalltau(first, second).statistic), 12)  # see rank_agreement


def resampled(values_LS: torch.Tensor, weights_S: torch.Tensor, resamples: int, seed: int) -> torch.Tensor:
    """Weighted means of bootstrap resamples of the sequences, R x L.

    Drawn some at a time, so that a million sequences don't take gigabytes; the draws are the same.
    """
    import torch

    generator, count = torch.Generator().manual_seed(seed), len(weights_S)
    rows = max(1, AT_ONCE // count)
    parts = [_drawn(values_LS, weights_S, min(rows, resamples - i), generator) for i in range(0, resamples, rows)]
    return torch.cat(parts) if parts else values_LS.new_zeros(0, len(values_LS))


def _drawn(
    values_LS: torch.Tensor, weights_S: torch.Tensor, resamples: int, generator: torch.Generator
) -> torch.Tensor:
    import torch

    picks_RS = torch.randint(len(weights_S), (resamples, len(weights_S)), generator=generator)
    times_RS = torch.zeros(picks_RS.shape, dtype=weights_S.dtype).scatter_add_(
        1, picks_RS, torch.ones_like(picks_RS, dtype=weights_S.dtype)
    )
    weights_RS = times_RS * weights_S
    return weights_RS @ values_LS.T / weights_RS.sum(1, keepdim=True)
