"""Criteria that are a mean over tokens of how a block, or a sublayer, changes the hidden state: bi,
relative_magnitude, mse.

Shapes: B sequences, T tokens, D hidden, S sequences in all, L rows of scores.
"""

from __future__ import annotations

from typing import Any

import torch

from shortlm.artifacts import CriterionScores
from shortlm.score.criterion import Criterion, Passing, Setting, chord, token_mean


class TokenwiseCriterion(Criterion):
    """The mean over all real tokens of `change`; a preset may sum instead, or look behind the final norm."""

    needs = frozenset({"states"})
    defaults = {"reduction": "mean", "last_state": "pre-norm"}

    def __init__(self, setting: Setting, options: dict[str, Any]):
        super().__init__(setting, options)
        self.means: list[list[torch.Tensor]] = [[] for _ in setting.units]
        self.counts: list[torch.Tensor] = []

    def change(self, in_BTD: torch.Tensor, out_BTD: torch.Tensor) -> torch.Tensor:
        """How much a unit changed each token's state, B x T."""
        raise TypeError(f"{type(self).__name__} defines no change")

    def observe(self, row: int, passing: Passing) -> None:
        change_BT = self.change(passing.before_BTD.float(), self.behind(passing).float())
        means_B, counts_B = token_mean(change_BT, passing.batch)
        self.means[row].append(means_B)
        if row == 0:
            self.counts.append(counts_B)

    def result(self) -> CriterionScores:
        values_LS = self.gathered(torch.stack([torch.cat(parts) for parts in self.means]), dim=1)
        counts_S = self.gathered(torch.cat(self.counts))
        weights_S = counts_S / counts_S.sum()
        scale = float(counts_S.sum()) if self.options["reduction"] == "sum" else 1.0
        return CriterionScores(
            scores=(values_LS @ weights_S * scale).tolist(), unit=self.unit,
            per_sequence=(values_LS * scale).tolist(), weights=weights_S.tolist(),
        )  # fmt: skip


class BlockInfluence(TokenwiseCriterion):
    """1 - cos(h_i, h_{i+1}) (ShortGPT, 2403.03853).

    The preset is its public code: sums over tokens, the last state behind the final norm.
    """

    name, unit = "bi", "1 - cosine"
    presets = {"shortgpt": {"reduction": "sum", "last_state": "post-norm"}}

    def change(self, in_BTD: torch.Tensor, out_BTD: torch.Tensor) -> torch.Tensor:
        return chord(in_BTD, out_BTD).square() / 2


class RelativeMagnitude(TokenwiseCriterion):
    """||f(h)|| / ||h + f(h)||, f what the block adds (used as a baseline by EvoPress, 2410.14649)."""

    name, unit = "relative_magnitude", "norm ratio"
    presets = {"evopress": {}}

    def change(self, in_BTD: torch.Tensor, out_BTD: torch.Tensor) -> torch.Tensor:
        return (out_BTD - in_BTD).norm(dim=-1) / out_BTD.norm(dim=-1).clamp_min(torch.finfo(torch.float32).tiny)


class SquaredDifference(TokenwiseCriterion):
    """||h_{i+1} - h_i||^2 (short-transformers)."""

    name, unit = "mse", "squared norm"
    presets = {"short-transformers": {}}

    def change(self, in_BTD: torch.Tensor, out_BTD: torch.Tensor) -> torch.Tensor:
        return (out_BTD - in_BTD).square().sum(-1)
