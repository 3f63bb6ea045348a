"""Angular distance between the states before and after every run of blocks (Gromov et al., 2403.17887).

arccos(cos(h_l, h_{l+n})) / pi at the last token that is no padding, mean over sequences: a table over the
run's length n and its start l. The score of a single block is its row n = 1. Sublayers have scores and no table:
the states around them need not be links of one chain.

Shapes: S sequences, D hidden, L rows of scores.
"""

from __future__ import annotations

from math import pi
from typing import Any

import torch

from shortlm.artifacts import CriterionScores
from shortlm.score.criterion import Criterion, Passing, Setting, chord, last_token


class Angular(Criterion):
    """Presets: `gromov` as above; `pruneme`, the public code, looks behind the final norm and never offers block 0."""

    name, unit = "angular", "angle / pi"
    needs = frozenset({"states"})
    defaults = {"last_state": "pre-norm", "first_start": 0}
    presets = {"gromov": {}, "pruneme": {"last_state": "post-norm", "first_start": 1}}

    def __init__(self, setting: Setting, options: dict[str, Any]):
        super().__init__(setting, options)
        self.values: list[list[torch.Tensor]] = [[] for _ in setting.units]
        self.states: list[list[torch.Tensor]] = [[] for _ in range(len(setting.units) + 1)]  # h_0 .. h_L, for the table

    def observe(self, row: int, passing: Passing) -> None:
        before_BD, after_BD = (
            last_token(h_BTD, passing.batch).cpu() for h_BTD in (passing.before_BTD, self.behind(passing))
        )
        self.values[row].append(_distance(before_BD, after_BD))
        if self.setting.of_blocks:
            self.states[row + 1].append(after_BD)
            if row == 0:
                self.states[0].append(before_BD)

    def result(self) -> CriterionScores:
        values_LS = self.gathered(torch.stack([torch.cat(parts) for parts in self.values]), dim=1)
        return CriterionScores(
            scores=values_LS.mean(1).tolist(), unit=self.unit, per_sequence=values_LS.tolist(),
            weights=[1 / values_LS.shape[1]] * values_LS.shape[1],
            table=self._table() if self.setting.of_blocks else None,
        )  # fmt: skip

    def _table(self) -> list[list[float]]:
        states, n_blocks = [self.gathered(torch.cat(parts)) for parts in self.states], len(self.setting.units)
        return [
            [float(_distance(states[start], states[start + n]).mean()) for start in range(n_blocks - n + 1)]
            for n in range(1, n_blocks + 1)
        ]


def _distance(a_SD: torch.Tensor, b_SD: torch.Tensor) -> torch.Tensor:
    """Of each sequence, in units of pi: 0 the same direction, 1 the opposite one."""
    return (chord(a_SD, b_SD).double() / 2).clamp(max=1).asin() * 2 / pi
