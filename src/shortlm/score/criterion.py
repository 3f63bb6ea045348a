"""What a criterion is: hooks that the sweep feeds, and a result.

Shapes: S sequences, B of them in a batch, T tokens, D hidden, L rows of scores (blocks, or units of blocks).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from shortlm.artifacts import CriterionScores
from shortlm.model import Anatomy
from shortlm.sweep import Batch, BlockGradients, Losses, Ranks
from shortlm.units import ATTENTION, BLOCK, FFN, Unit

W = TypeVar("W")


@dataclass(frozen=True)
class Setting:
    """What is scored: units, a row of scores for each; the model's parts, the seed, all sequences and their owners."""

    units: Sequence[Unit]
    anatomy: Anatomy
    seed: int
    sequences: int
    ranks: Ranks = field(default_factory=Ranks)

    @property
    def of_blocks(self) -> bool:
        """Whether the rows are whole blocks."""
        return all(unit.part == BLOCK for unit in self.units)

    def rows(self, i: int) -> list[tuple[int, Unit]]:
        """The rows that are of block i, or of a part of it."""
        each = len(self.units) // len(self.anatomy.blocks)
        return [(row, self.units[row]) for row in range(i * each, (i + 1) * each)]

    def weights(self, unit: Unit, of_block: dict[str, W]) -> dict[str, W]:
        """Those of a block's weights, by name, that belong to a unit. Norms beside the sublayers belong to none."""
        if unit.part == BLOCK:
            return of_block
        modules = {ATTENTION: self.anatomy.attention, FFN: self.anatomy.ffn}[unit.part][unit.block]
        return {name: weight for name, weight in of_block.items() if name.partition(".")[0] in modules}


class Passing(NamedTuple):
    """A batch passing a unit of the whole model: the residual stream before it and behind it."""

    before_BTD: torch.Tensor
    after_BTD: torch.Tensor
    batch: Batch
    is_last: bool = False  # after_BTD is the model's last state


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
    # of "weights", "states", "removals", "gradients", "weight gradients", "outputs"
    needs: frozenset[str] = frozenset()
    defaults: dict[str, Any] = {}
    presets: dict[str, dict[str, Any]] = {}

    def __init__(self, setting: Setting, options: dict[str, Any]):
        self.setting = setting
        self.options = {**self.defaults, **options}

    def weigh(self, row: int, weights: dict[str, nn.Parameter]) -> None:
        """The scored weights of a row's unit, while its block is in memory (needs "weights")."""

    def observe(self, row: int, passing: Passing) -> None:
        """A batch passed a row's unit (needs "states")."""

    def removals(self, losses: Losses) -> None:
        """The losses without the unit of row 0, of row 1, ... (needs "removals")."""

    def gradients(self, block: BlockGradients, weighting: Weighting) -> None:
        """One block's gradients (needs "gradients"; those of its weights are there with "weight gradients", and who
        asks for its outputs without sublayers needs "outputs").
        """

    def gathered(self, values: torch.Tensor, dim: int = 0) -> torch.Tensor:
        """Values per sequence (along `dim`) of all processes, from those of this one."""
        return self.setting.ranks.all_gather(values, self.setting.sequences, dim)

    def behind(self, passing: Passing) -> torch.Tensor:
        """The state behind a unit; the model's last one behind the final norm, if the option last_state says so."""
        norm = self.setting.anatomy.norm
        if passing.is_last and self.options["last_state"] == "post-norm" and norm is not None:
            return norm(passing.after_BTD)
        return passing.after_BTD

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
