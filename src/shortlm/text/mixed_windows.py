"""Windows of several texts with weights: the loss is the weighted mean of the texts' mean losses.

Shapes: S windows, T tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from shortlm.artifacts import DataFacts
from shortlm.errors import TextError, shown
from shortlm.recipe import TextSettings
from shortlm.text.windows import Windows, open_windows


def open_mixture(text: TextSettings, mix: Sequence[str], tokenizer: Any, vocabulary: int) -> Windows:
    """Windows of `text` (weight 1) and of more texts, each as FILE or FILE=WEIGHT, by the same settings.

    The windows of the texts alternate, so that any stretch of them has its share of each. Raises TextError if a text
    can't be read, is given twice, or has a weight that is none.
    """
    if not mix:
        return open_windows(text, tokenizer, vocabulary)
    if text.ids is not None:
        raise TextError("--mix: mixes texts, and --ids gives token ids; put all of them into that file")
    weights = {text.text: 1.0}
    for entry in mix:
        name, weight = _entry(entry)
        if name in weights:
            raise TextError(f"--mix {shown(entry)}: this text is given twice")
        weights[name] = weight
    parts = [
        open_windows(text.model_copy(update={"text": name, "name": None}), tokenizer, vocabulary) for name in weights
    ]
    return _joined(parts, list(weights.values()))


def _entry(entry: str) -> tuple[str, float]:
    name, equals, number = entry.rpartition("=")
    if not equals:
        return entry, 1.0
    try:
        weight = float(number)
    except ValueError:
        return entry, 1.0  # a file with = in its name
    if not (math.isfinite(weight) and weight > 0):
        raise TextError(f"--mix {shown(entry)}: the weight has to be a number above 0")
    return name, weight


def _joined(parts: list[Windows], weights: list[float]) -> Windows:
    shares = [weight / sum(weights) * part.shares_S for part, weight in zip(parts, weights, strict=True)]
    places = torch.cat([(torch.arange(len(s), dtype=torch.float64) + 0.5) / len(s) for s in shares])
    order_S = places.argsort(stable=True)
    facts = DataFacts(
        source=" + ".join(f"{w:g} {p.facts.source}" for p, w in zip(parts, weights, strict=True)),
        sha256=parts[0].facts.sha256 if len(parts) == 1 else _digest(parts), bos=parts[0].facts.bos,
        sequences=len(order_S), tokens=sum(p.facts.tokens for p in parts), seed=parts[0].facts.seed,
    )  # fmt: skip
    ids_ST, keep_ST = (torch.cat([getattr(p, name) for p in parts])[order_S] for name in ("ids_BT", "keep_BT"))
    return Windows(ids_ST, keep_ST, facts, torch.cat(shares)[order_S])


def _digest(parts: list[Windows]) -> str:
    import hashlib

    return hashlib.sha256("".join(part.facts.sha256 for part in parts).encode()).hexdigest()
