"""The verb: a CutPlan and a checkpoint give a shorter checkpoint, proved, with its manifest."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from shortlm.artifacts import CutPlan, Manifest, ModelFacts, provenance
from shortlm.cut.proof import prove
from shortlm.cut.surgery import Piece, carry_files, kept_pieces, write_shards
from shortlm.errors import OutputError, PlanError
from shortlm.model import (
    Checkpoint,
    check_blocks,
    cut_config,
    facts_of,
    find_anatomy,
    guard,
    meta_model,
    open_checkpoint,
    open_config,
    open_tokenizer,
)  # fmt: skip
from shortlm.outputs import refuse_existing, whole_folder
from shortlm.recipe import CutSettings, ModelSettings
from shortlm.sizes import byte_size


def cut(
    model: ModelSettings,
    plan: CutPlan,
    settings: CutSettings,
    out: Path | str,
    force: bool = False,
    key: str | None = None,
) -> Manifest:
    """Write the model without the blocks of `plan` to the folder `out`, whole or not at all.

    `key` goes into the manifest's provenance, where `run` looks for it.

    Raises ModelError if the architecture or the files can't be cut soundly, PlanError if the plan is for
    another model, OutputError if `out` is in use (and `force` is off) or the disk is full.
    """
    started = time.perf_counter()
    out = Path(out).expanduser()
    checkpoint = open_checkpoint(model.model, model.revision)
    _refuse_own_folder(checkpoint, out)
    refuse_existing(out, force)
    open_tokenizer(checkpoint.folder, model.trust_remote_code)
    shorter, facts, pieces = _planned(checkpoint, model, plan)
    shard_size = byte_size(settings.shard_size)
    with whole_folder(out, force) as part:
        _refuse_full_disk(part, sum(piece.entry.nbytes for piece in pieces), out)
        carry_files(checkpoint.folder, part)
        shorter.save_pretrained(part)
        written = write_shards(pieces, part, shard_size)
        proof = prove(model, checkpoint.folder, part, plan.removed) if settings.prove else None
        seconds = round(time.perf_counter() - started, 3)
        manifest = Manifest(
            plan=plan.model_copy(update={"model": facts}), blocks=_original(checkpoint, plan.kept),
            bytes_before=checkpoint.nbytes, bytes_after=written, proof=proof,
            provenance=provenance(dtype=proof.dtype if proof else None, seconds=seconds, key=key),
        )  # fmt: skip
        manifest.save(part / "manifest.json")
    return manifest


def _planned(checkpoint: Checkpoint, model: ModelSettings, plan: CutPlan) -> tuple[Any, ModelFacts, list[Piece]]:
    """The config of the result, the facts of the original, the tensors to copy: all that can be refused, first."""
    config = open_config(model)
    before = meta_model(config, model.trust_remote_code)
    facts = facts_of(before, model.model, checkpoint.revision)
    _check_plan(plan, facts)
    shorter = cut_config(config, plan.kept)
    guard(config, shorter, plan.kept, model.trust_remote_code)
    return shorter, facts, kept_pieces(checkpoint, find_anatomy(before).blocks_path, plan.kept, facts.n_blocks)


def refuse_uncuttable(model: ModelSettings) -> None:
    """Raise ModelError for what can't be cut whatever the plan, so that nobody scores it for hours first."""
    checkpoint, config = open_checkpoint(model.model, model.revision), open_config(model)
    before = meta_model(config, model.trust_remote_code)
    count = len(find_anatomy(before).blocks)
    cut_config(config, list(range(count - 1)))
    kept_pieces(checkpoint, find_anatomy(before).blocks_path, list(range(count - 1)), count)


def _original(checkpoint: Checkpoint, kept: list[int]) -> list[int]:
    """Indices in the first model of all, if this one was cut before."""
    manifest = checkpoint.folder / "manifest.json"
    blocks = Manifest.load(manifest).blocks if manifest.is_file() else None
    return [blocks[i] for i in kept] if blocks else kept


def _check_plan(plan: CutPlan, facts: ModelFacts) -> None:
    check_blocks(plan.removed, facts.n_blocks, "plan")
    if plan.model.n_blocks != facts.n_blocks or plan.model.block_parameters != facts.block_parameters:
        raise PlanError(
            f"the plan is for {plan.model.name} ({plan.model.n_blocks} blocks, {plan.model.parameters:,} parameters), "
            f"this model is {facts.name} ({facts.n_blocks} blocks, {facts.parameters:,} parameters); make a new plan"
        )


def _refuse_own_folder(checkpoint: Checkpoint, out: Path) -> None:
    """--force must never replace the input, nor a folder that holds it."""
    source, target = checkpoint.folder.resolve(), out.resolve()
    if target == source or target in source.parents:
        raise OutputError(f"{out}: the output would replace the model itself; choose another --out")


def _refuse_full_disk(part: Path, needed: int, out: Path) -> None:
    free = shutil.disk_usage(part).free
    if free < needed:
        raise OutputError(f"{out}: needs {needed:,} bytes and the disk has {free:,} free; free some space")
