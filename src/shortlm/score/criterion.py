"""What a criterion is: hooks that the sweep feeds, and a result.

Shapes: S sequences, B of them in a batch, T tokens, D hidden, L blocks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from shortlm.artifacts import CriterionScores
from shortlm.model import Anatomy
from shortlm.sweep import Batch, BlockGradients, Losses, Ranks


@dataclass(frozen=True)
class Setting:
    """What is scored: the number of blocks, the parts of the model, the seed, all sequences and who has which."""

    n_blocks: int
    anatomy: Anatomy
    seed: int
    sequences: int
    ranks: Ranks = field(default_factory=Ranks)


@dataclass(frozen=True)
class Weighting:
    """The loss that gradients are taken of: the sum over sequences of weights_S times their summed cross-entropy."""

    weights_S: torch.Tensor
    tokens_S: torch.Tensor  # predicted tokens
    mine: slice  # the sequences that this process has


class Criterion:
    """Base of all criteria. A subclass says what it needs and overrides the hooks that feed it."""

    name = ""
    unit = ""
    needs: frozenset[str] = frozenset()  # of "weights", "states", "removals", "gradients", "weight gradients"
    defaults: dict[str, Any] = {}
    presets: dict[str, dict[str, Any]] = {}

    def __init__(self, setting: Setting, options: dict[str, Any]):
        self.setting = setting
        self.options = {**self.defaults, **options}

    def weigh(self, i: int, block: nn.Module) -> None:
        """Block i, while it is in memory (needs "weights")."""

    def observe(self, i: int, in_BTD: torch.Tensor, out_BTD: torch.Tensor, batch: Batch) -> None:
        """Block i of the whole model took in_BTD to out_BTD (needs "states")."""

    def removals(self, losses: Losses) -> None:
        """The losses without block 0, without block 1, ... (needs "removals")."""

    def gradients(self, block: BlockGradients, weighting: Weighting) -> None:
        """One block's gradients (needs "gradients"; those of its weights are there with "weight gradients")."""

    def gathered(self, values: torch.Tensor, dim: int = 0) -> torch.Tensor:
        """Values per sequence (along `dim`) of all processes, from those of this one."""
        return self.setting.ranks.all_gather(values, self.setting.sequences, dim)

    def result(self) -> CriterionScores:
        """The scores, once everything has been fed; equal in all processes."""
        raise TypeError(f"{type(self).__name__} defines no result")


def token_mean(values_BT: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean over the real tokens of each sequence, and their number (both B, float64, on the CPU)."""
    keep_BT = batch.keep_BT
    counts_B = keep_BT.sum(1).cpu().double()
    return torch.where(keep_BT, values_BT, 0).cpu().double().sum(1) / counts_B, counts_B


def last_token(h_BTD: torch.Tensor, batch: Batch) -> torch.Tensor:
    """The state at the last token that is no padding, B x D, float32."""
    positions_B = batch.keep_BT.shape[1] - 1 - batch.keep_BT.flip(1).int().argmax(1)
    return h_BTD[torch.arange(len(h_BTD)), positions_B].float()


def chord(a_D: torch.Tensor, b_D: torch.Tensor) -> torch.Tensor:
    """||a/|a| - b/|b||| over the last dimension, float32.

    1 - cos = chord^2 / 2 and angle = 2 asin(chord / 2). Unlike 1 - cos itself, which loses all digits where a
    block hardly turns the state, this does not cancel.
    """
    return (F.normalize(a_D.float(), dim=-1, eps=1e-30) - F.normalize(b_D.float(), dim=-1, eps=1e-30)).norm(dim=-1)
