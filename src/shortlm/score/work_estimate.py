"""What scoring would take, for every criterion, from a config alone: `shortlm plan-memory`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cached_property
from math import ceil
from typing import Any

import torch

from shortlm.artifacts import WorkEstimate, WorkRow, provenance
from shortlm.checkpoint import locate
from shortlm.errors import TextError
from shortlm.model import (
    compute_type,
    facts_of,
    free_memory,
    meta_model,
    open_config,
    planned_device,
    read_some,
    scored_weights,
)
from shortlm.recipe import ModelSettings, Plain, ScoreSettings, TextSettings, settings_of
from shortlm.score.criterion import Criterion, Passing, Setting, Weighting
from shortlm.score.registry import parse
from shortlm.score.scoring import refuse_lacking, work_of
from shortlm.sizes import byte_size
from shortlm.sweep import (
    BlockGradients,
    CallTimes,
    MadeUpModel,
    ModelSize,
    Schedule,
    Scheduler,
    Work,
    seconds,
    taken_memory,
)
from shortlm.units import units_of

PROBE = 2**28  # bytes that are read to see how fast the disk is


def plan_memory(
    model: ModelSettings | Plain, text: TextSettings | Plain | None = None,
    settings: ScoreSettings | Mapping[str, object] | None = None, measure: bool = True,
) -> WorkEstimate:  # fmt: skip
    """What every criterion takes alone and what all of them take together.

    Reads the config only; with `measure` it times a made-up block on the device, and the disk if the weights
    are there. A device that isn't here is planned for without times, and so is what its free memory can't hold.
    Raises ScoreError if a memory budget is too small, ModelError for sublayers that blocks don't have.
    """
    model, text = settings_of(ModelSettings, model), settings_of(TextSettings, text)
    settings = settings_of(ScoreSettings, settings)
    config, parts = open_config(model), settings.parts()
    refuse_lacking(config, parts, model.trust_remote_code)
    dtype, (device, here) = compute_type(model, config), planned_device(model.device)
    folder, revision = locate(model.model, model.revision, weights=False)
    size = ModelSize.of(config, dtype, model.trust_remote_code)
    scheduler = Scheduler(config, size, dtype, device, taken_memory(device), trust_remote_code=model.trust_remote_code)
    shape = _shape(text)
    groups = {spec: [spec] for spec in settings.criteria}
    if len(groups) > 1:
        groups["all together"] = settings.criteria
    shapes = {name: shape if _needs_text(specs) else (0, 0) for name, specs in groups.items()}
    works = {name: work_of(specs, shapes[name], settings.check, parts) for name, specs in groups.items()}
    budget, free = byte_size(model.memory) if model.memory else None, free_memory(device) if here else None
    schedules = {n: scheduler.settled(w, model.stream, budget, free, settings.batch_size) for n, w in works.items()}
    clock = _Clock(scheduler, folder, free) if measure and free is not None else None
    rows = [
        WorkRow(
            name=name, streamed=schedule.streamed, batch_size=schedule.batch_size, passes=schedule.passes,
            peak_bytes=schedule.peak_bytes, parts=schedule.parts, bytes_read=schedule.bytes_read, exact=schedule.exact,
            block_forwards=schedule.block_forwards, flops=schedule.flops,
            seconds=clock.seconds(works[name], schedule, groups[name]) if clock else None,
        )
        for name, schedule in schedules.items()
    ]  # fmt: skip
    facts = facts_of(meta_model(config, model.trust_remote_code), model.model, revision)
    return WorkEstimate(
        model=facts, sequences=shape[0], tokens=shape[1], weights_bytes=size.total, rows=rows,
        disk_bytes_per_second=clock.disk if clock else None,
        provenance=provenance(str(device), str(dtype).removeprefix("torch.")),
    )  # fmt: skip


def _shape(text: TextSettings) -> tuple[int, int]:
    """Sequences and tokens of each; a BOS is counted where one may come on top."""
    if text.ids is not None or not text.count:
        raise TextError("planning needs numbers: give --sequences and --length (not --ids, not 0 for all of the text)")
    return text.count, text.length + (text.bos in ("auto", "every"))


def _needs_text(specs: list[str]) -> bool:
    return any(parse(spec)[0].needs - {"weights"} for spec in specs)


class _Clock:
    """Turns schedules into seconds, by times measured on this device once for each batch size."""

    def __init__(self, scheduler: Scheduler, folder: Any, free: int):
        self.scheduler, self.free = scheduler, free
        self.known: dict[tuple[int, int], CallTimes] = {}
        self.disk = _disk_rate(folder)

    @cached_property
    def made_up(self) -> MadeUpModel:
        scheduler = self.scheduler
        return MadeUpModel(scheduler.config, scheduler.dtype, scheduler.device, **scheduler.opening)

    def seconds(self, work: Work, schedule: Schedule, specs: list[str]) -> float | None:
        """Computing, or reading where that takes longer: the two go side by side. None if memory is too small."""
        if self._needed(schedule) > self.free:
            return None
        computing = self._weighing(work, specs) + (self._sweeping(work, schedule, specs) if work.forward else 0.0)
        reading = schedule.bytes_read / self.disk if self.disk else 0.0
        return max(computing, reading) if schedule.streamed else computing + reading

    def _needed(self, schedule: Schedule) -> int:
        """Bytes of a block of each kind and of what one call of it takes."""
        sizes = {*self.scheduler.size.blocks}  # blocks of one kind have one size
        return sum(sizes) + sum(schedule.parts.get(name, 0) for name in ("one call", "gradients"))

    def _sweeping(self, work: Work, schedule: Schedule, specs: list[str]) -> float:
        n_blocks, turns = len(self.scheduler.size.blocks), work.turns * work.gradients
        calls = work.sequences / schedule.batch_size  # the last batch may have fewer sequences
        full = calls / ceil(calls)
        times = self._times(schedule.batch_size, work.tokens)
        forwards = schedule.block_forwards * full
        forwards -= calls * n_blocks * turns * (1 + work.weight_gradients * len(work.parts))
        forwards += n_blocks * schedule.checked / schedule.batch_size
        heads = schedule.lm_head_calls * full + 4 * turns * calls + 2 * schedule.checked / schedule.batch_size
        total = forwards * times.block + heads * times.head
        total += calls * n_blocks * self._observing(schedule.batch_size, work, specs)
        return total + turns * n_blocks * self._gradients(calls, schedule.batch_size, work, specs) if turns else total

    def _gradients(self, calls: float, batch_size: int, work: Work, specs: list[str]) -> float:
        """Of one block: back-propagation of every batch, and what the criteria make of it."""
        criteria = self._criteria(work, specs, "gradients")
        weights_S = torch.ones(batch_size, dtype=torch.float64)
        weighting = Weighting(weights_S, weights_S, slice(None))

        def back_propagated(i: int) -> BlockGradients:
            return self.made_up.back_propagated(i, batch_size, work.tokens, work.weight_gradients)

        def with_criteria(i: int) -> None:
            block = back_propagated(i)
            for criterion in criteria:
                criterion.gradients(block, weighting)

        once = self.made_up.mean(back_propagated)
        criterion = self.made_up.mean(with_criteria) - once
        along = self.made_up.mean(lambda i: self.made_up.directional_derivatives(i, batch_size, work.tokens)) - once
        shares = work.weight_gradients * len(work.parts)
        return calls * once + criterion + (calls - 1) * max(along, 0.0) * shares

    def _times(self, batch: int, tokens: int) -> CallTimes:
        key = (batch, tokens)
        if key not in self.known:
            self.known[key] = self.made_up.times(*key)
        return self.known[key]

    def _criteria(self, work: Work, specs: list[str], need: str) -> list[Criterion]:
        setting = Setting(units_of(work.parts, len(self.scheduler.size.blocks)), self.made_up.anatomy, 0, 2)
        parsed = [parse(spec) for spec in specs]
        return [kind(setting, options) for kind, options in parsed if need in kind.needs]

    def _observing(self, batch_size: int, work: Work, specs: list[str]) -> float:
        """What the criteria make of the states around one block and its sublayers."""
        watching = self._criteria(work, specs, "states")
        if not watching:
            return 0.0
        batch = self.made_up.batch(batch_size, work.tokens)
        h_BTD = batch.h_BTD
        assert h_BTD is not None
        passing = Passing(h_BTD, h_BTD, batch)
        once = sum(seconds(lambda c=c: c.observe(0, passing), self.scheduler.device) for c in watching)
        return once * len(work.parts)

    def _weighing(self, work: Work, specs: list[str]) -> float:
        weighing, blocks = self._criteria(work, specs, "weights"), self.made_up.anatomy.blocks

        def weigh(i: int) -> None:
            of_block = scored_weights(blocks[i])
            for criterion in weighing:
                for row, unit in criterion.setting.rows(i):
                    criterion.weigh(row, criterion.setting.weights(unit, of_block))

        return self.made_up.mean(weigh) * len(blocks) if weighing else 0.0


def _disk_rate(folder: Any) -> float | None:
    """Bytes per second of reading the weights, if they are there; what the system holds in memory reads faster."""
    shards = sorted(folder.glob("*.safetensors"), key=lambda path: path.stat().st_size)
    if not shards:
        return None
    started = time.perf_counter()
    count = read_some(shards[-1], PROBE)
    return count / (time.perf_counter() - started)
