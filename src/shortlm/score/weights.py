"""Criteria over a block's weights: magnitude and taylor (Shortened LLaMA, 2402.02834).

Both reduce |x|^p first within each weight, then over the weights of the block; x is W, or W * dLoss/dW.
Biases are left out. Sums in float32 or better.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import Any

import torch
from torch import nn

from shortlm.artifacts import CriterionScores
from shortlm.model import scored_weights
from shortlm.score.criterion import Criterion, Setting, Weighting
from shortlm.sweep import BlockGradients

REDUCTIONS = {"sum": sum, "mean": lambda x: sum(x) / len(x), "max": max, "prod": prod}
PUBLISHED: dict[str, Any] = {"p": 1, "weights": "sum", "block": "sum"}


def reduced(tensors: Iterable[torch.Tensor], options: dict[str, Any]) -> float:
    """|x|^p of each tensor, reduced within it (`weights`), then over all of them (`block`)."""
    within = [_within(tensor.float().abs() ** options["p"], options["weights"]) for tensor in tensors]
    return float(REDUCTIONS[options["block"]](within))


def _within(values: torch.Tensor, how: str) -> float:
    if how == "max":
        return float(values.max())
    if how == "prod":
        return float(values.double().prod())
    total = float(values.sum(dtype=torch.float64))
    return total / values.numel() if how == "mean" else total


class Magnitude(Criterion):
    """Sum of |W|^p over the block's weights; needs no data."""

    name, unit = "magnitude", "sum of |W|"
    defaults = PUBLISHED
    needs = frozenset({"weights"})
    presets = {"shortened-llm": {}}

    def __init__(self, setting: Setting, options: dict[str, Any]):
        super().__init__(setting, options)
        self.scores = [0.0] * setting.n_blocks

    def weigh(self, i: int, block: nn.Module) -> None:
        self.scores[i] = reduced((w.detach() for w in scored_weights(block).values()), self.options)

    def result(self) -> CriterionScores:
        return CriterionScores(scores=self.scores, unit=self.unit)


class Taylor(Criterion):
    """Sum of |W * dLoss/dW|^p; the gradients of several batches are added, signs and all, before the absolute value.

    The score is an absolute value of a sum, so sequences don't simply average. What is kept per sequence is
    its share: S times the sum over weights of sign(W g) W g_s. These average to the score (for p = 1 and
    sums), and their spread gives its standard error to first order (infinitesimal jackknife).
    `batches` parts the sequences as the published code does: each part's loss is its own mean.
    """

    name, unit = "taylor", "sum of |W g|"
    needs = frozenset({"gradients"})
    defaults = {**PUBLISHED, "batches": 1}
    presets = {"shortened-llm": {}}

    def __init__(self, setting: Setting, options: dict[str, Any]):
        super().__init__(setting, options)
        self.scores = [0.0] * setting.n_blocks
        self.shares: list[list[float]] = [[] for _ in range(setting.n_blocks)]
        self.spread = (self.options["p"], self.options["weights"], self.options["block"]) == (1, "sum", "sum")

    def gradients(self, block: BlockGradients, total: dict[str, torch.Tensor], weighting: Weighting) -> None:
        products = {n: w.detach().float() * total[n] for n, w in block.weights.items()}
        self.scores[block.index] = reduced(products.values(), self.options)
        count = len(weighting.tokens_S)
        if self.spread and count > 1:
            signed = {n: products[n].sign() * w.detach().float() for n, w in block.weights.items()}
            for grads in block.per_sequence():
                share = sum(float((signed[n] * g).sum(dtype=torch.float64)) for n, g in grads.items())
                self.shares[block.index].append(share * count)

    def result(self) -> CriterionScores:
        count = len(self.shares[0])
        if not count:
            return CriterionScores(scores=self.scores, unit=self.unit)
        return CriterionScores(
            scores=self.scores, unit=self.unit, per_sequence=self.shares, weights=[1 / count] * count
        )


class FirstOrder(Criterion):
    """The loss increase that bypassing a block would bring, to first order: <dLoss/dh_{i+1}, h_i - h_{i+1}>.

    Summed over tokens, mean over sequences, Loss the mean cross-entropy of a sequence. One forward and one
    backward sweep for all blocks.
    """

    name, unit = "first_order", "nats per token"
    needs = frozenset({"gradients"})

    def __init__(self, setting: Setting, options: dict[str, Any]):
        super().__init__(setting, options)
        self.values: list[torch.Tensor] = [torch.empty(0)] * setting.n_blocks

    def gradients(self, block: BlockGradients, total: dict[str, torch.Tensor], weighting: Weighting) -> None:
        parts = [(p.grad_BTD.double() * (p.in_BTD - p.out_BTD).double()).sum((1, 2)).cpu() for p in block.passages]
        self.values[block.index] = torch.cat(parts) / weighting.weights_S / weighting.tokens_S

    def result(self) -> CriterionScores:
        values_LS = torch.stack(self.values)
        count = values_LS.shape[1]
        return CriterionScores(
            scores=values_LS.mean(1).tolist(), unit=self.unit, per_sequence=values_LS.tolist(),
            weights=[1 / count] * count,
        )  # fmt: skip
