"""Which of several sets is best once it is repaired: all are cut in memory and repaired beside one dense model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shortlm.cut.unwritten import unwritten_cut
from shortlm.model import open_files
from shortlm.recipe import ModelSettings, RepairSettings, TextSettings
from shortlm.repair import losses_after_repair
from shortlm.units import Unit

PASSES = 2.5  # of a cut model's blocks over the windows, about, that a repair takes


@dataclass(frozen=True)
class AfterRepair:
    """Repairs sets by these settings; what `search` asks at its end."""

    model: ModelSettings
    text: TextSettings
    settings: RepairSettings

    def losses(self, sets: Sequence[Sequence[Unit]]) -> list[float]:
        """Nats per token on the validation windows without each of these sets, repaired."""
        dense = open_files(self.model)
        cuts = [unwritten_cut(dense, units) for units in sets]
        return losses_after_repair(cuts, dense, self.text, self.settings)

    def block_forwards(self, sets: int, n_blocks: int, sequences: int) -> float:
        """About what that takes, each over `sequences`."""
        windows = self.settings.calibration + self.settings.validation
        return n_blocks * (1 + PASSES * sets) * windows / sequences
