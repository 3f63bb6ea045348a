"""What the forward sweep shows, handed to the criteria row by row: the weights of every unit, the states around it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from shortlm.model import scored_weights
from shortlm.score.criterion import Criterion, Passing, Setting
from shortlm.sweep import Batch, BlockCaller, KeptStates, sublayer_states
from shortlm.units import BLOCK, Mask


class Feed:
    """Feeds criteria with what they need of one forward sweep; `kept` keeps its states for a backward one."""

    def __init__(
        self, setting: Setting, caller: BlockCaller, criteria: Sequence[Criterion], kept: KeptStates | None = None
    ):
        self.setting, self.caller, self.kept = setting, caller, kept
        self.weighing, self.watching, self.removing = (
            [c for c in criteria if need in c.needs] for need in ("weights", "states", "removals")
        )

    @property
    def masks(self) -> list[Mask]:
        """What the sweep has to leave out: one mask for each row, if losses are needed."""
        return [frozenset({unit}) for unit in self.setting.units] if self.removing else []

    @property
    def is_watching(self) -> bool:
        """Whether the sweep has to show its states."""
        return bool(self.watching or self.kept)

    def weigh(self, i: int) -> None:
        """Block i is in memory."""
        if self.weighing:
            of_block = scored_weights(self.caller.blocks[i])
            for row, unit in self.setting.rows(i):
                for criterion in self.weighing:
                    criterion.weigh(row, self.setting.weights(unit, of_block))

    def observe(self, i: int, in_BTD: torch.Tensor, out_BTD: torch.Tensor, batch: Batch) -> None:
        """A batch has passed block i of the whole model, which is in memory."""
        if self.watching:
            states = {BLOCK: (in_BTD, out_BTD)}
            if not self.setting.of_blocks:
                states = sublayer_states(self.caller, i, in_BTD, out_BTD, batch)
            for row, unit in self.setting.rows(i):
                before_BTD, after_BTD = states[unit.part]
                is_last = after_BTD is out_BTD and i == len(self.caller.blocks) - 1
                for criterion in self.watching:
                    criterion.observe(row, Passing(before_BTD, after_BTD, batch, is_last))
        if self.kept:
            self.kept(i, in_BTD, out_BTD, batch)
