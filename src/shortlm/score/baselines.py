"""Criteria that look at nothing: random and depth."""

from __future__ import annotations

import random

from shortlm.artifacts import CriterionScores
from shortlm.score.criterion import Criterion


class Random(Criterion):
    """A uniform random number per row; the baseline every criterion has to beat."""

    name, unit = "random", "uniform"
    defaults = {"seed": None}

    def result(self) -> CriterionScores:
        seed = self.setting.seed if self.options["seed"] is None else self.options["seed"]
        rng = random.Random(seed)
        return CriterionScores(scores=[rng.random() for _ in self.setting.units], unit=self.unit)


class Depth(Criterion):
    """L - 1 - i of L rows: the deepest block goes first ("reverse order" in 2411.15558; the simple baseline of
    2403.17887), and of a block the FFN before the attention.

    The preset `gromov` keeps the last block, with its sublayers.
    """

    name, unit = "depth", "blocks above"
    defaults = {"keep_last": False}
    presets = {"gromov": {"keep_last": True}}

    def result(self) -> CriterionScores:
        count, last = len(self.setting.units), len(self.setting.anatomy.blocks) - 1
        scores = [float(count - 1 - row) for row in range(count)]
        for row, _ in self.setting.rows(last) if self.options["keep_last"] else ():
            scores[row] += count
        return CriterionScores(scores=scores, unit=self.unit)
