"""Criteria over the weights of a block or a sublayer: magnitude and taylor (Shortened LLaMA, 2402.02834).

Both reduce |x|^p first within each weight, then over the weights of the unit; x is W, or W * dLoss/dW.
Biases are left out. Norms that stand beside the sublayers count for the block and for no sublayer. Sums in float32
or better.

Shapes: S sequences, T tokens, D hidden, L rows of scores.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from math import prod
from typing import Any

import torch
from torch import nn

from shortlm.artifacts import CriterionScores
from shortlm.score.criterion import Criterion, Setting, Weighting
from shortlm.sweep import PIECE, BlockGradients, widest

REDUCTIONS = {"sum": sum, "mean": lambda x: sum(x) / len(x), "max": max, "prod": prod}
PUBLISHED: dict[str, Any] = {"p": 1, "weights": "sum", "block": "sum"}


Pair = tuple[torch.Tensor, torch.Tensor | None]  # a weight and its gradient


def reduced(pairs: Iterable[Pair], options: dict[str, Any]) -> float:
    """|x|^p of each weight (times its gradient), reduced within it (`weights`), then over all of them (`block`)."""
    within = [_within(pair, options["p"], options["weights"]) for pair in pairs]
    return float(REDUCTIONS[options["block"]](within))


def _within(pair: Pair, p: int, how: str) -> float:
    parts = [_piece(values**p if p > 1 else values, how) for values in _pieces(*pair)]
    return float(REDUCTIONS["sum" if how == "mean" else how](parts)) / (pair[0].numel() if how == "mean" else 1)


def _pieces(weight: torch.Tensor, grad: torch.Tensor | None) -> Iterator[torch.Tensor]:
    """|W|, or |W g|, piece by piece in float32."""
    grads = itertools.repeat(None) if grad is None else grad.flatten().split(PIECE)
    for values, factor in zip(weight.flatten().split(PIECE), grads, strict=False):
        yield values.float().abs() if factor is None else (values.float() * factor).abs_()


def _piece(values: torch.Tensor, how: str) -> float:
    if how == "max":
        return float(values.max())
    return float(values.cpu().double().prod() if how == "prod" else values.sum(dtype=widest(values.device)))


class Magnitude(Criterion):
    """Sum of |W|^p over the weights of a unit; needs no data."""

    name, unit = "magnitude", "sum of |W|"
    defaults = PUBLISHED
    needs = frozenset({"weights"})
    presets = {"shortened-llm": {}}

    def __init__(self, setting: Setting, options: dict[str, Any]):
        super().__init__(setting, options)
        self.scores = [0.0] * len(setting.units)

    def weigh(self, row: int, weights: dict[str, nn.Parameter]) -> None:
        self.scores[row] = reduced(((w.detach(), None) for w in weights.values()), self.options)

    def result(self) -> CriterionScores:
        return CriterionScores(scores=self.scores, unit=self.unit)


class Taylor(Criterion):
    """Sum of |W * dLoss/dW|^p; the gradients of several batches are added, signs and all, before the absolute value.

    The score is an absolute value of a sum, so sequences don't simply average. What is kept per sequence is
    its share: S times the sum over weights of sign(W g) W g_s = |W| sign(g) g_s. These average to the score
    (for p = 1 and sums), and their spread gives its standard error to first order (infinitesimal jackknife).
    `batches` parts the sequences as the published code does: each part's loss is its own mean.
    """

    name, unit = "taylor", "sum of |W g|"
    needs = frozenset({"gradients", "weight gradients"})
    defaults = {**PUBLISHED, "batches": 1}
    presets = {"shortened-llm": {}}

    def __init__(self, setting: Setting, options: dict[str, Any]):
        super().__init__(setting, options)
        self.scores = [0.0] * len(setting.units)
        self.shares: list[list[float]] = [[] for _ in setting.units]
        self.spread = (self.options["p"], self.options["weights"], self.options["block"]) == (1, "sum", "sum")

    def gradients(self, block: BlockGradients, weighting: Weighting) -> None:
        count = len(weighting.tokens_S)
        for row, unit in self.setting.rows(block.index):
            weights = self.setting.weights(unit, block.weights)
            self.scores[row] = reduced(((w.detach(), block.total(n)) for n, w in weights.items()), self.options)
            if self.spread and count > 1:
                towards = {n: torch.copysign(w.detach(), block.total(n).to(w.dtype)) for n, w in weights.items()}
                self.shares[row] = [share * count for share in block.directional_derivatives(towards)]

    def result(self) -> CriterionScores:
        if not self.shares[0]:
            return CriterionScores(scores=self.scores, unit=self.unit)
        shares_LS = self.gathered(torch.tensor(self.shares, dtype=torch.float64), dim=1)
        count = shares_LS.shape[1]
        return CriterionScores(
            scores=self.scores, unit=self.unit, per_sequence=shares_LS.tolist(), weights=[1 / count] * count
        )


class FirstOrder(Criterion):
    """The loss increase that bypassing a block would bring, to first order: <dLoss/dh_{i+1}, h_i - h_{i+1}>.

    Of a sublayer: <dLoss/dh_{i+1}, h - h_{i+1}>, h being the block's output without it; exact within the block, of
    first order behind it. Summed over tokens, mean over sequences, Loss the mean cross-entropy of a sequence. One
    forward and one backward sweep for all units.
    """

    name, unit = "first_order", "nats per token"
    needs = frozenset({"gradients", "outputs"})

    def __init__(self, setting: Setting, options: dict[str, Any]):
        super().__init__(setting, options)
        self.values: list[torch.Tensor] = [torch.empty(0)] * len(setting.units)

    def gradients(self, block: BlockGradients, weighting: Weighting) -> None:
        mine = weighting.mine
        for row, unit in self.setting.rows(block.index):
            values_S = torch.cat([block.effect_of(unit.part, p) for p in block.passages])
            self.values[row] = values_S / weighting.weights_S[mine] / weighting.tokens_S[mine]

    def result(self) -> CriterionScores:
        values_LS = self.gathered(torch.stack(self.values), dim=1)
        count = values_LS.shape[1]
        return CriterionScores(
            scores=values_LS.mean(1).tolist(), unit=self.unit, per_sequence=values_LS.tolist(),
            weights=[1 / count] * count,
        )  # fmt: skip
