"""Criteria that look at nothing: random and depth."""

from __future__ import annotations

import random

from shortlm.artifacts import CriterionScores
from shortlm.score.criterion import Criterion


class Random(Criterion):
    """A uniform random number per block; the baseline every criterion has to beat."""

    name, unit = "random", "uniform"
    defaults = {"seed": None}

    def result(self) -> CriterionScores:
        seed = self.setting.seed if self.options["seed"] is None else self.options["seed"]
        rng = random.Random(seed)
        return CriterionScores(scores=[rng.random() for _ in range(self.setting.n_blocks)], unit=self.unit)


class Depth(Criterion):
    """L - 1 - i: the deepest block goes first ("reverse order" in 2411.15558; the simple baseline of 2403.17887).

    The preset `gromov` keeps the last block.
    """

    name, unit = "depth", "blocks above"
    defaults = {"keep_last": False}
    presets = {"gromov": {"keep_last": True}}

    def result(self) -> CriterionScores:
        n_blocks = self.setting.n_blocks
        scores = [float(n_blocks - 1 - i) for i in range(n_blocks)]
        if self.options["keep_last"]:
            scores[-1] = float(n_blocks)
        return CriterionScores(scores=scores, unit=self.unit)
