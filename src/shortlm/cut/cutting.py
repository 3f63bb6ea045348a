"""The verb: a CutPlan and a checkpoint give a shorter checkpoint, proved, with its manifest.

Nothing here imports torch unless the cut is to be proved: see planning.py.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from shortlm.artifacts import CutPlan, Manifest, manifest_of, provenance
from shortlm.checkpoint import Checkpoint, carry_files, open_checkpoint
from shortlm.cut.planning import planned
from shortlm.cut.surgery import kept_pieces, write_checksums, write_shards
from shortlm.errors import ModelError, OutputError
from shortlm.outputs import refuse_existing, whole_folder
from shortlm.paths import user_path
from shortlm.recipe import CutSettings, ModelSettings
from shortlm.sizes import byte_size
from shortlm.units import Unit


def cut(
    model: ModelSettings,
    plan: CutPlan | Sequence[Unit | int],
    settings: CutSettings,
    out: Path | str,
    force: bool = False,
    key: str | None = None,
) -> Manifest:
    """Write the model without the blocks of `plan` (or without these blocks) to the folder `out`, whole or not at all.

    `key` goes into the manifest's provenance, where `run` looks for it.

    Raises ModelError if the architecture or the files can't be cut soundly, PlanError if the plan is for
    another model, OutputError if `out` is in use (and `force` is off) or the disk is full.
    """
    started = time.perf_counter()
    out = user_path(out)
    checkpoint = open_checkpoint(model.model, model.revision)
    _refuse_own_folder(checkpoint, out)
    refuse_existing(out, force)
    ready = planned(model, plan)
    plan, kept = ready.plan, ready.plan.kept
    pieces = kept_pieces(checkpoint, ready.blocks_path, kept, ready.facts.n_blocks)
    original = _original(checkpoint, kept, ready.facts.n_blocks)
    with whole_folder(out, force) as part:
        _refuse_full_disk(part, sum(piece.entry.nbytes for piece in pieces), out)
        carry_files(checkpoint.folder, part)
        (part / "config.json").write_text(ready.config_json, encoding="utf-8")
        written = write_shards(pieces, part, byte_size(settings.shard_size))
        proof = None
        if settings.prove:
            from shortlm.cut.proof import prove

            proof = prove(model, part, plan.removed)
        if settings.checksums:
            write_checksums(part)
        seconds = round(time.perf_counter() - started, 3)
        manifest = Manifest(
            plan=plan.model_copy(update={"model": ready.facts}), blocks=original,
            base_path=_local(model.model), bytes_before=checkpoint.nbytes, bytes_after=written, proof=proof,
            provenance=provenance(dtype=proof.dtype if proof else None, seconds=seconds, key=key),
        )  # fmt: skip
        manifest.save(part / "manifest.json")
    return manifest


def refuse_uncuttable(model: ModelSettings) -> None:
    """Raise ModelError for what can't be cut whatever the plan, so that nobody scores it for hours first."""
    from shortlm.model import cut_config, find_anatomy, meta_model, open_config

    checkpoint, config = open_checkpoint(model.model, model.revision), open_config(model)
    before = meta_model(config, model.trust_remote_code)
    count = len(find_anatomy(before).blocks)
    cut_config(config, list(range(count - 1)))
    kept_pieces(checkpoint, find_anatomy(before).blocks_path, list(range(count - 1)), count)


def _original(checkpoint: Checkpoint, kept: list[int], n_blocks: int) -> list[int]:
    """Indices in the first model of all, if this one was cut before. Raises ModelError for another model's manifest."""
    manifest = manifest_of(checkpoint.folder)
    if manifest is None:
        return kept
    if len(manifest.blocks) != n_blocks:
        raise ModelError(
            f"{checkpoint.folder / 'manifest.json'}: tells of {len(manifest.blocks)} blocks, the model has {n_blocks}; "
            "it is another model's: move it away"
        )
    return [manifest.blocks[i] for i in kept]


def _local(name: str) -> str | None:
    """Where a local model is, from whatever folder it is asked for later; for the teacher of `heal`."""
    folder = user_path(name)
    return str(folder.resolve()) if name != "embedded" and folder.is_dir() else None


def _refuse_own_folder(checkpoint: Checkpoint, out: Path) -> None:
    """--force must never replace the input, nor a folder that holds it."""
    source, target = checkpoint.folder.resolve(), out.resolve()
    if target == source or target in source.parents:
        raise OutputError(f"{out}: the output would replace the model itself; choose another --out")


def _refuse_full_disk(part: Path, needed: int, out: Path) -> None:
    free = shutil.disk_usage(part).free
    if free < needed:
        raise OutputError(f"{out}: needs {needed:,} bytes and the disk has {free:,} free; free some space")
