"""A cut that isn't written: the files of the whole model, read under the names that they would have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from shortlm.checkpoint import Copy
from shortlm.cut.checked_config import planned
from shortlm.cut.surgery import kept_pieces
from shortlm.errors import ModelError
from shortlm.leftovers import scratch_folder
from shortlm.model import ModelFiles, open_config
from shortlm.recipe import ModelSettings
from shortlm.units import Unit


class UnwrittenCut(NamedTuple):
    """Files that can be opened from disk, and what is left of the model: blocks by the whole model's indices."""

    files: ModelFiles
    blocks: list[int]
    left_out: list[Unit]


def unwritten_cut(dense: ModelFiles, units: Sequence[Unit]) -> UnwrittenCut:
    """The model without these units. Raises ModelError or PlanError where that can't be."""
    ready = planned(dense.settings, units)
    if ready.per_block:
        raise ModelError(f"{dense.settings.model}: has weights of all blocks in one tensor; choose without --repair")
    pieces = kept_pieces(dense.checkpoint, ready.surgery)
    tensors = {piece.name: piece.source for piece in pieces if isinstance(piece, Copy)}
    with scratch_folder("config") as folder:
        (folder / "config.json").write_text(ready.config_json, encoding="utf-8")
        config = open_config(ModelSettings(model=str(folder), trust_remote_code=dense.settings.trust_remote_code))
    settings = dense.settings.model_copy(update={"stream": "on"})  # there is no folder to load whole
    files = replace(dense, settings=settings, checkpoint=replace(dense.checkpoint, tensors=tensors), config=config)
    return UnwrittenCut(files, ready.plan.kept, ready.plan.removed_sublayers)
