"""What several cut models come to once they are repaired, beside one pass through the dense model."""

from __future__ import annotations

from collections.abc import Sequence

from shortlm.model import ModelFiles, block_count
from shortlm.recipe import RepairSettings, TextSettings
from shortlm.repair.fitting import fit_beside
from shortlm.repair.pairing import Pairing
from shortlm.repair.repairing import caller_of, fitting_of
from shortlm.repair.sources import Sources
from shortlm.repair.validation import losses
from shortlm.sweep import Side, joined_ranks
from shortlm.units import Unit


def losses_after_repair(
    cuts: Sequence[tuple[ModelFiles, list[int], list[Unit]]],
    dense: ModelFiles,
    text: TextSettings,
    settings: RepairSettings,
) -> list[float]:
    """Nats per token of every cut model on the validation windows: repaired, or as cut where that is better.

    Each is given as its files, the dense model's indices of its blocks, and the units that are left out of these, by
    the same indices. Under torchrun the processes share the windows.
    """
    n_dense, sources = block_count(dense.config), list[Sources]()
    for files, blocks, left_out in cuts:
        here = [Unit(blocks.index(unit.block), unit.part) for unit in left_out if unit.block in blocks]
        sources.append(Sources.of(files, dense, text, settings, Pairing(blocks, here, n_dense)))
    with joined_ranks() as ranks:
        batches = sources[0].batches(ranks)
        streamed = dense.settings.stream == "on" or (dense.settings.stream == "auto" and not dense.fits())
        side = Side.of(caller_of(dense, streamed), batches[0] + batches[1])
        fittings = [fitting_of(one, batches, ranks, dense=side) for one in sources]
        fit_beside(side, fittings)
        found = [losses(fitting)[0] for fitting in fittings]
    return [min(loss.repaired, loss.cut) for loss in found]
