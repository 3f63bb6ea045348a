"""Scores and perplexities are finite numbers, or an error that names the block."""

from __future__ import annotations

import math

from shortlm.errors import ScoreError
from shortlm.sweep.forward import Losses


def perplexity_of(losses: Losses) -> float:
    """The whole model's. Raises ScoreError if it is no number."""
    value = float((losses.base_S.sum() / losses.tokens_S.sum()).exp())
    if not math.isfinite(value):
        raise ScoreError(f"the whole model's perplexity is {value}; check its weights, or use --dtype float32")
    return value


def refuse_no_number(spec: str, scores: list[float]) -> None:
    """Raise ScoreError, naming the block, if a score is NaN or infinite."""
    for i, value in enumerate(scores):
        if not math.isfinite(value):
            raise ScoreError(
                f"criterion '{spec}': the score of block {i} is {value}; "
                "check the block's weights, or compute in --dtype float32"
            )
