"""The verb: a model and a little text give a narrower checkpoint, checked, with its manifest."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from shortlm.artifacts import Manifest, Width, WidthStep, provenance
from shortlm.checkpoint import Draft, earlier_steps, refuse_target, with_step, written
from shortlm.errors import PlanError
from shortlm.model import facts_of, find_anatomy, meta_model
from shortlm.outputs import output_path
from shortlm.progress import is_main
from shortlm.recipe import ModelSettings, Plain, TextSettings, WidthSettings, not_default, settings_of
from shortlm.sizes import byte_size, count
from shortlm.sweep import Job, Say, open_job
from shortlm.sweep.equivalence import check_equivalence
from shortlm.units import ATTENTION, FFN
from shortlm.width.form import Form, config_json
from shortlm.width.groups import Kept
from shortlm.width.masking import Means, masked
from shortlm.width.slicing import narrowed_pieces
from shortlm.width.sources import Sources
from shortlm.width.walking import Walk

MULTIPLE = 64  # of a channel count that matrix kernels like
TOLD = {"method", "shape", "text", "ids", "sequences", "name", "shard_size", "checksums", "verify", "model", "revision"}
TOLD |= {"device", "stream", "memory"}
FEW = 256  # channels below which it doesn't matter


def prune_width(
    model: ModelSettings | Plain,
    text: TextSettings | Plain | None = None,
    settings: WidthSettings | Mapping[str, object] | None = None,
    out: Path | str | None = None,
    force: bool = False,
    say: Say = lambda line: None,
    key: str | None = None,
) -> Manifest:
    """Write the model with fewer heads and channels to the folder `out`, whole or not at all.

    `key` goes into the step's provenance. Under torchrun every process has a share of the windows; one writes.
    Raises ModelError for a model that can't be narrowed soundly, PlanError for a budget or form that can't be,
    ScoreError for a memory budget that is too small, OutputError if `out` is in use (and `force` is off).
    """
    model, text = settings_of(ModelSettings, model), settings_of(TextSettings, text)
    settings, started, out = settings_of(WidthSettings, settings), time.perf_counter(), output_path(out)
    sources, text = Sources.of(model, settings), text.for_model(model.model)
    refuse_target(sources.files.checkpoint, out, force)
    with open_job(model, text, lambda files, shape: sources.work(shape), say=say) as job:
        _refuse_several_passes(job)
        walk = Walk(job, sources.method, sources.narrowed)
        kept = walk.run(sources.counts) or sources.chosen(walk.scores)
        if is_main():
            full = {(g.block, g.part): kept.get((g.block, g.part), list(range(g.count))) for g in sources.groups}
            _write(sources, text, job, full, walk.means if sources.method.bias else None, out, force, say, started, key)
        job.ranks.total(0)  # all wait until it is written
    return Manifest.load(out / "manifest.json")


def _refuse_several_passes(job: Job) -> None:
    if job.schedule and job.schedule.streamed and job.schedule.passes > 1:
        raise PlanError(
            "--memory: the states of all windows have to pass a block together and don't fit; give more memory or "
            "fewer --sequences"
        )


def _write(
    sources: Sources, text: TextSettings, job: Job, kept: Kept, means: Means | None, out: Path, force: bool,
    say: Say, started: float, key: str | None,
) -> None:  # fmt: skip
    form, settings, source = sources.form(kept), sources.settings, sources.files.checkpoint
    _tell(sources, kept, form, say)
    pieces = narrowed_pieces(sources.stored, sources.groups, kept, form, means)
    facts = facts_of(sources.before, sources.files.settings.model, source.revision)
    draft, earlier = Draft(source, pieces, config_json(form.config)), earlier_steps(source, facts.n_blocks)
    with written(draft, out, force, byte_size(settings.shard_size), settings.checksums) as part:
        check = None
        if settings.verify:
            edited = lambda anatomy: masked(anatomy, sources.groups, kept, means)  # noqa: E731
            check = check_equivalence(sources.files.settings, part, edited=edited)
        assert job.windows is not None
        step = WidthStep(
            method=settings.method, shape=settings.shape, form=form.name, found=facts,
            parameters_after=facts_of(meta_model(form.config), facts.name).parameters, widths=_widths(sources, kept),
            bias=means is not None, data=job.windows.facts, equivalence=check,
            options=not_default(text, settings, sources.files.settings, told=TOLD),
            bytes_before=source.nbytes, bytes_after=draft.nbytes,
            provenance=provenance(
                str(job.opened.device), job.opened.dtype, round(time.perf_counter() - started, 3), key
            ),
        )  # fmt: skip
        with_step(earlier, source, facts, step).save(part / "manifest.json")


def _widths(sources: Sources, kept: Kept) -> list[Width]:
    by_key = {(g.block, g.part): g for g in sources.groups}
    found = []
    for i in range(len(find_anatomy(sources.before).blocks)):
        heads, channels = by_key.get((i, ATTENTION)), by_key.get((i, FFN))
        found.append(Width(
            heads=kept.get((i, ATTENTION), []), heads_before=heads.count if heads else 0,
            channels=len(kept.get((i, FFN), [])), channels_before=channels.count if channels else 0,
        ))  # fmt: skip
    return found


def _tell(sources: Sources, kept: Kept, form: Form, say: Say) -> None:
    """What a user may not expect of the result."""
    channels = {len(kept[g.block, FFN]) for g in sources.groups if g.part == FFN}
    awkward = sorted(n for n in channels if n % MULTIPLE and n > FEW)
    if awkward:
        nearest = MULTIPLE * round(awkward[0] / MULTIPLE)
        say(
            f"warning: {awkward[0]:,} channels are no multiple of {MULTIPLE}, on which matrix kernels are slower "
            f"(nearest: {nearest:,})"
        )
    if form.name == "shortlm" and sources.settings.form == "auto":
        after = count(facts_of(meta_model(form.config), "").parameters)
        say(f"no plain config can say this; it is written as our own type, {after} parameters (`import shortlm` first)")
