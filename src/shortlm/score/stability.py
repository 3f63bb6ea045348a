"""How sure the scores and their order are: standard errors and the bootstrap over sequences.

Shapes: L blocks, R resamples.
"""

from __future__ import annotations

from typing import Any

import torch

from shortlm.artifacts import CriterionScores
from shortlm.statistics import mean_stderr, rank_agreement, resampled


def with_stability(result: CriterionScores, resamples: int, seed: int) -> CriterionScores:
    """`result` with standard errors, and the stability of its ranks over `resamples` bootstrap resamples."""
    if result.per_sequence is None or result.weights is None or len(result.weights) < 2:
        return result
    values_LS = torch.tensor(result.per_sequence, dtype=torch.float64)
    weights_S = torch.tensor(result.weights, dtype=torch.float64)
    stderr_L = mean_stderr(values_LS, weights_S)
    if result.unit == "perplexity":  # the exponential of what is kept per sequence
        stderr_L = stderr_L * torch.tensor(result.scores)
    update: dict[str, Any] = {"stderr": stderr_L.tolist()}
    if resamples:
        ranks_RL = _ranks(resampled(values_LS, weights_S, resamples, seed))
        own_L = _ranks((values_LS @ weights_S)[None])[0]
        low, high = (torch.quantile(ranks_RL.double(), q, dim=0, interpolation="nearest") for q in (0.05, 0.95))
        intervals = [(int(a), int(b)) for a, b in zip(low, high, strict=True)]
        update |= {"rank_interval": intervals, "rank_agreement": rank_agreement(ranks_RL, own_L)}
    return result.model_copy(update=update)


def _ranks(scores_RL: torch.Tensor) -> torch.Tensor:
    """0 for the least important; ties go to the lower index."""
    return scores_RL.argsort(dim=1, stable=True).argsort(dim=1)
