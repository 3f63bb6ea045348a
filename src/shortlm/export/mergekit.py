"""The verb: the cut of a checkpoint as a recipe for mergekit (a passthrough merge of the runs of blocks that stay)."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import yaml

from shortlm.artifacts import CutStep, manifest_of
from shortlm.checkpoint import locate
from shortlm.errors import ExportError
from shortlm.outputs import write_text
from shortlm.recipe import ModelSettings, Plain, settings_of


def export_mergekit(model: ModelSettings | Plain, out: Path | str, force: bool = False) -> Path:
    """Write the YAML file `out`. Raises ExportError where the checkpoint is more than whole blocks of its base."""
    model = settings_of(ModelSettings, model)
    folder, _ = locate(model.model, model.revision, weights=False)
    manifest = manifest_of(folder)
    if manifest is None:
        raise ExportError(f"{model.model}: has no manifest of shortlm, which tells which blocks stayed")
    if manifest.left_out or not all(isinstance(step, CutStep) for step in manifest.steps):
        done = ", ".join(dict.fromkeys(step.kind for step in manifest.steps))
        raise ExportError(
            f"{model.model}: mergekit can say which whole blocks stay and nothing else, and this was made by: {done}; "
            "export the checkpoint as it was after the cut"
        )
    name = manifest.base.name
    base = manifest.base_path or (str(locate(name)[0]) if name == "embedded" else name)
    slices = [{"sources": [{"model": base, "layer_range": run}]} for run in _runs(manifest.blocks)]
    content = {"slices": slices, "merge_method": "passthrough", "dtype": manifest.provenance.dtype or "bfloat16"}
    return write_text(out, yaml.safe_dump(content, sort_keys=False), force)


def _runs(blocks: list[int]) -> list[list[int]]:
    """Neighbours together, each run as mergekit has it: the first block, and the one behind the last."""
    runs = [[block for _, block in run] for _, run in groupby(enumerate(blocks), lambda pair: pair[1] - pair[0])]
    return [[run[0], run[-1] + 1] for run in runs]
