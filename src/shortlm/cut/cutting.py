"""The verb: a CutPlan and a checkpoint give a shorter checkpoint, checked, with its manifest.

Nothing here imports torch unless the result is to be checked: see checked_config.py.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from shortlm.artifacts import CutPlan, CutStep, Equivalence, Manifest, provenance
from shortlm.checkpoint import Draft, earlier_steps, open_checkpoint, refuse_target, with_step, written
from shortlm.cut.checked_config import planned
from shortlm.cut.decilm_files import write_foreign
from shortlm.cut.surgery import Surgery, kept_pieces
from shortlm.outputs import output_path
from shortlm.recipe import CutSettings, ModelSettings, Plain, settings_of
from shortlm.sizes import byte_size
from shortlm.units import Unit


def cut(
    model: ModelSettings | Plain,
    plan: CutPlan | Sequence[Unit | int],
    settings: CutSettings | Mapping[str, object] | None = None,
    out: Path | str | None = None,
    force: bool = False,
    key: str | None = None,
) -> Manifest:
    """Write the model without the units of `plan` (or without these) to the folder `out`, whole or not at all.

    `key` goes into the step's provenance, where `run` looks for it.

    Raises ModelError if the architecture or the files can't be cut soundly, PlanError if the plan is for
    another model, OutputError if `out` is in use (and `force` is off) or the disk is full.
    """
    model, settings = settings_of(ModelSettings, model), settings_of(CutSettings, settings)
    started, out = time.perf_counter(), output_path(out)
    source = open_checkpoint(model.model, model.revision)
    refuse_target(source, out, force)
    ready = planned(model, plan, settings.form, settings.mtp)
    pieces = kept_pieces(source, ready.surgery)
    draft, earlier = Draft(source, pieces, ready.config_json), earlier_steps(source, ready.facts.n_blocks)
    with written(draft, out, force, byte_size(settings.shard_size), settings.checksums) as part:
        check = _checked(model, part, ready.plan) if settings.verify else None
        if ready.foreign_json:
            write_foreign(part, ready.foreign_json)
        seconds = round(time.perf_counter() - started, 3)
        step = CutStep(
            plan=ready.plan, form=ready.form, equivalence=check,
            mtp=ready.became_of_mtp, bytes_before=source.nbytes, bytes_after=draft.nbytes,
            provenance=provenance(dtype=check.dtype if check else None, seconds=seconds, key=key),
        )  # fmt: skip
        manifest = with_step(earlier, source, ready.facts, step)
        manifest.save(part / "manifest.json")
    return manifest


def _checked(model: ModelSettings, result: Path, plan: CutPlan) -> Equivalence:
    from shortlm.sweep.equivalence import check_equivalence

    return check_equivalence(model, result, plan.removed, plan.removed_sublayers)


def refuse_uncuttable(model: ModelSettings) -> None:
    """Raise ModelError for what can't be cut whatever the plan, so that nobody scores it for hours first."""
    from shortlm.model import cut_config, find_anatomy, meta_model, mtp_names, open_config, prefix_of_blocks

    checkpoint, config = open_checkpoint(model.model, model.revision), open_config(model)
    before = meta_model(config, model.trust_remote_code)
    count = len(find_anatomy(before).blocks)
    cut_config(config, list(range(count - 1)))
    mtp = mtp_names(config, checkpoint.tensors)
    kept_pieces(checkpoint, Surgery(prefix_of_blocks(before, checkpoint), list(range(count - 1)), count, mtp=mtp))
