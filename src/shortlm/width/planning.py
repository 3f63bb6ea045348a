"""What pruning of widths would take, before any weight is read: memory, reading, computing, time."""

from __future__ import annotations

from shortlm.artifacts import WorkEstimate, WorkRow, provenance
from shortlm.errors import TextError
from shortlm.model import facts_of, find_anatomy, free_memory
from shortlm.recipe import ModelSettings, TextSettings, WidthSettings
from shortlm.sizes import byte_size
from shortlm.sweep import MadeUpModel, Schedule, Scheduler, Work
from shortlm.width.sources import Sources


def plan_width(model: ModelSettings, text: TextSettings, settings: WidthSettings, measure: bool = True) -> WorkEstimate:
    """Reads headers and the config; with `measure` a made-up block is timed. Raises as `prune_width` does."""
    if text.ids is not None or not text.count:
        raise TextError("planning needs numbers: give --sequences and --length (not --ids, not 0 for all of the text)")
    sources = Sources.of(model, settings)
    files, shape = sources.files, (text.count, text.length + (text.bos in ("auto", "every")))
    work, scheduler = sources.work(shape), Scheduler.of(files)
    budget = byte_size(model.memory) if model.memory else None
    schedule = scheduler.settled(work, model.stream, budget, free_memory(files.device))
    row = WorkRow(
        name=settings.method, streamed=schedule.streamed, batch_size=schedule.batch_size, passes=schedule.passes,
        peak_bytes=schedule.peak_bytes, parts=schedule.parts, bytes_read=schedule.bytes_read, exact=schedule.exact,
        block_forwards=schedule.block_forwards * (1 + sources.method.in_turn),
        flops=schedule.flops * (1 + sources.method.in_turn),
        seconds=_seconds(sources, work, schedule) if measure else None,
    )  # fmt: skip
    return WorkEstimate(
        model=facts_of(sources.before, model.model, files.checkpoint.revision), sequences=shape[0], tokens=shape[1],
        weights_bytes=files.checkpoint.nbytes, rows=[row], disk_bytes_per_second=None,
        provenance=provenance(str(files.device), str(files.dtype).removeprefix("torch.")),
    )  # fmt: skip


def _seconds(sources: Sources, work: Work, schedule: Schedule) -> float:
    files = sources.files
    made_up = MadeUpModel(
        files.config, files.dtype, files.device, trust_remote_code=files.settings.trust_remote_code
    )  # fmt: skip
    calls = work.sequences / schedule.batch_size * len(find_anatomy(sources.before).blocks)
    block = made_up.times(schedule.batch_size, work.tokens).block
    if not sources.method.gradients:
        return calls * block * (1 + sources.method.in_turn)
    back = made_up.mean(lambda i: made_up.back_propagated(i, schedule.batch_size, work.tokens, True))
    return calls * (block + back)
