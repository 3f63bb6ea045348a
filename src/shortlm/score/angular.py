"""Angular distance between the states before and after every run of blocks (Gromov et al., 2403.17887).

arccos(cos(h_l, h_{l+n})) / pi at the last token that is no padding, mean over sequences: a table over the
run's length n and its start l. The score of a single block is its row n = 1.
"""

from __future__ import annotations

from math import pi
from typing import Any

import torch

from shortlm.artifacts import CriterionScores
from shortlm.score.criterion import Criterion, Setting, chord, last_token
from shortlm.sweep import Batch


class Angular(Criterion):
    """Presets: `gromov` as above; `pruneme`, the public code, looks behind the final norm and never offers block 0."""

    name, unit = "angular", "angle / pi"
    needs = frozenset({"states"})
    defaults = {"last_state": "pre-norm", "first_start": 0}
    presets = {"gromov": {}, "pruneme": {"last_state": "post-norm", "first_start": 1}}

    def __init__(self, setting: Setting, options: dict[str, Any]):
        super().__init__(setting, options)
        self.states: list[list[torch.Tensor]] = [[] for _ in range(setting.n_blocks + 1)]

    def observe(self, i: int, in_BTD: torch.Tensor, out_BTD: torch.Tensor, batch: Batch) -> None:
        if i == 0:
            self.states[0].append(last_token(in_BTD, batch).cpu())
        last = i == self.setting.n_blocks - 1
        if last and self.options["last_state"] == "post-norm" and self.setting.anatomy.norm is not None:
            out_BTD = self.setting.anatomy.norm(out_BTD)
        self.states[i + 1].append(last_token(out_BTD, batch).cpu())

    def result(self) -> CriterionScores:
        states = [self.gathered(torch.cat(parts)) for parts in self.states]
        n_blocks = self.setting.n_blocks
        values_LS = torch.stack([_distance(states[i], states[i + 1]) for i in range(n_blocks)])
        table = [
            [float(_distance(states[start], states[start + n]).mean()) for start in range(n_blocks - n + 1)]
            for n in range(1, n_blocks + 1)
        ]
        return CriterionScores(
            scores=values_LS.mean(1).tolist(), unit=self.unit, per_sequence=values_LS.tolist(),
            weights=[1 / values_LS.shape[1]] * values_LS.shape[1], table=table,
        )  # fmt: skip


def _distance(a_SD: torch.Tensor, b_SD: torch.Tensor) -> torch.Tensor:
    """Of each sequence, in units of pi: 0 the same direction, 1 the opposite one."""
    return (chord(a_SD, b_SD).double() / 2).clamp(max=1).asin() * 2 / pi
