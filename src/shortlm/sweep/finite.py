"""Scores and perplexities are finite numbers, or an error that names the block, or the sublayer."""

from __future__ import annotations

import math
from collections.abc import Sequence

from shortlm.errors import ScoreError
from shortlm.sweep.forward import Losses
from shortlm.units import BLOCK, Unit


def perplexity_of(losses: Losses) -> float:
    """The whole model's. Raises ScoreError if it is no number."""
    value = float((losses.base_S.sum() / losses.tokens_S.sum()).exp())
    if not math.isfinite(value):
        raise ScoreError(f"the whole model's perplexity is {value}; check its weights, or use --dtype float32")
    return value


def refuse_no_number(spec: str, scores: list[float], units: Sequence[Unit] = ()) -> None:
    """Raise ScoreError, naming the unit, if a score is NaN or infinite; `units` are what they are of (all blocks)."""
    for unit, value in zip(units or map(Unit, range(len(scores))), scores, strict=True):
        if not math.isfinite(value):
            kind = "block" if unit.part == BLOCK else "sublayer"
            raise ScoreError(
                f"criterion '{spec}': the score of {kind} {unit} is {value}; "
                f"check the {kind}'s weights, or compute in --dtype float32"
            )
