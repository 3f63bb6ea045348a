"""What a repair reads: both models' files, which block is which, and the text. All of it is checked before any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from shortlm.errors import ModelError, RepairError, TextError
from shortlm.keys import fingerprint, key_of, model_key
from shortlm.model import ModelFiles, block_count, find_anatomy, meta_model, open_files, output_projection, vocabulary
from shortlm.recipe import ModelSettings, RepairSettings, TextSettings, not_default
from shortlm.repair.methods import Repair, read_method
from shortlm.repair.pairing import Pairing, paired
from shortlm.repair.writing import Files
from shortlm.sweep import CallCost, Ranks, auto_batch_size, call_cost
from shortlm.text import Windows, open_windows
from shortlm.units import ATTENTION, FFN

Batches = list[tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Sources:
    """Of one cut model and the dense one."""

    cut: ModelFiles
    dense: ModelFiles
    pairing: Pairing
    how: Repair
    settings: RepairSettings
    text: TextSettings
    files: Files

    @classmethod
    def of(
        cls, cut: ModelFiles, dense: ModelFiles, text: TextSettings, settings: RepairSettings, pairing: Pairing
    ) -> Sources:
        """Raises ModelError for weights that can't be solved for or written."""
        files = Files(cut.checkpoint, meta_model(cut.config, cut.settings.trust_remote_code))
        how = read_method(settings.method)
        if pairing.narrower and (how.solves or how.scales) and not (how.everywhere or pairing.gaps):
            raise RepairError(
                f"--method {how}: mends gaps between blocks, and none is missing, but some are narrower; give refit"
            )
        _refuse_unsolvable(files, how, pairing)
        text = text.model_copy(update={"sequences": settings.calibration + settings.validation})
        return cls(cut, dense, pairing, how, settings, text.for_model(dense.settings.model), files)

    @property
    def shape(self) -> tuple[int, int]:
        """Windows and tokens of each, a BOS included."""
        return self.windows.shape

    @cached_property
    def batch_size(self) -> int:
        """As many windows as are computed together in one process."""
        return auto_batch_size(self.settings.calibration, self.shape[1], self.cut.device)

    @cached_property
    def call_cost(self) -> CallCost:
        """Of one block with such a batch."""
        cut = self.cut
        trust = cut.settings.trust_remote_code
        return call_cost(cut.config, cut.dtype, self.batch_size, self.shape[1], trust_remote_code=trust)

    @cached_property
    def windows(self) -> Windows:
        """Those to fit on, and behind them those of validation. Raises TextError for too little text."""
        found = open_windows(self.text, self.dense.tokenizer or self.cut.tokenizer, vocabulary(self.dense.config))
        wanted = self.settings.calibration + self.settings.validation
        if len(found.ids_BT) < wanted:
            raise TextError(
                f"{found.facts.source}: holds {len(found.ids_BT)} windows, --calibration and --validation "
                f"need {wanted}; give more text, or smaller numbers"
            )
        return found.part(slice(wanted))

    def batches(self, ranks: Ranks) -> tuple[Batches, Batches]:
        """This process's share of the windows: to fit on, and of validation. Raises RepairError if it gets none."""
        fitted, windows = self.settings.calibration, self.windows
        if min(fitted, self.settings.validation) < ranks.size:
            raise RepairError(
                f"each of {ranks.size} processes needs a --calibration and a --validation window; give more"
            )
        parts = [windows.part(slice(fitted)), windows.part(slice(fitted, None))]
        mine = [part.part(ranks.share(len(part.ids_BT))) for part in parts]
        size = auto_batch_size(len(mine[0].ids_BT), windows.shape[1], self.cut.device)
        return mine[0].batches(size), mine[1].batches(size)

    def options(self) -> dict[str, str]:
        """Settings that are not at their defaults and that nothing else in the manifest tells."""
        told = {"method", "calibration", "validation", "text", "ids", "name", "seed", "sequences"}
        return not_default(self.text, self.settings, told=told)

    def folder(self, out: Path, base: str | None = None) -> Path:
        """Where weights that were solved for are kept until `out` is written; named by all that they depend on."""
        text = fingerprint(self.text.ids or self.text.text)
        key = key_of(
            "repair", base or _key(self.cut), _key(self.dense), self.text, text, self.settings, self.pairing.blocks
        )  # fmt: skip
        return out.parent / f".{out.name}.repair-{key[:12]}"


def _key(files: ModelFiles) -> str:
    return model_key(files.settings, files.checkpoint.revision)


def sources_of(
    model: ModelSettings,
    against: ModelSettings,
    text: TextSettings,
    settings: RepairSettings,
    blocks: Sequence[int] | None = None,
) -> Sources:
    """Of a written checkpoint; `blocks` where no manifest tells. Raises ModelError if the models don't fit together."""
    cut, dense = open_files(model), open_files(against)
    return Sources.of(cut, dense, text, settings, paired(cut, dense, blocks))


def check_repair(against: ModelSettings, text: TextSettings, settings: RepairSettings) -> None:
    """Raise, before a cut is there, what a repair of it would: TextError for too little text, ModelError for a model
    none of whose blocks has weights to solve for (experts).
    """
    dense, how = open_files(against), read_method(settings.method)
    whole = Pairing(list(range(block_count(dense.config))), [], block_count(dense.config))
    text = text.model_copy(update={"sequences": settings.calibration + settings.validation})
    files = Files(dense.checkpoint, meta_model(dense.config, against.trust_remote_code))
    _ = Sources(dense, dense, whole, how, settings, text.for_model(against.model), files).windows
    if how.solves or how.scales:
        _refuse_all_unsolvable(files, how)


def _refuse_all_unsolvable(files: Files, how: Repair) -> None:
    anatomy, parts = find_anatomy(files.model), how.parts if how.solves else (ATTENTION, FFN)
    refused: list[ModelError] = []
    for j in range(len(anatomy.blocks)):
        try:
            for part in parts:
                output_projection(anatomy, j, part)
        except ModelError as error:
            refused.append(error)
    if len(refused) == len(anatomy.blocks):
        raise refused[0]


def _refuse_unsolvable(files: Files, how: Repair, pairing: Pairing) -> None:
    anatomy = find_anatomy(files.model)
    for j in range(pairing.first if how.solves else 0, len(pairing.blocks) if how.solves or how.scales else 0):
        for part in how.parts if how.solves else (ATTENTION, FFN):
            if projection := output_projection(anatomy, j, part):
                files.stored(j, f"{projection.path}.weight")
