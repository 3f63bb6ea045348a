"""One phase: open the model, compose the steps, train, keep the best, write a plain checkpoint."""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from shortlm.artifacts import DataFacts, Phase
from shortlm.errors import HealError, RecipeError
from shortlm.heal.batches import MicroBatch, Steps, micro_batch_count, validation_batches
from shortlm.heal.checkpoints import COMPLETE, Checkpoint, checkpoint_folders, hint_for, last_checkpoint
from shortlm.heal.journal import Journal
from shortlm.heal.losses import Distillation, Loss, check_apart
from shortlm.heal.processes import fsdp, load_whole, ranks, wait_for_all
from shortlm.heal.remains import damaged, readable
from shortlm.heal.step_count import step_count, warmup_steps
from shortlm.heal.teacher import Teacher
from shortlm.heal.trainable import open_trained, precision, precision_words
from shortlm.model import ModelFiles, quiet, tokens_per_call, vocabulary
from shortlm.recipe import HealSettings, PhaseSettings
from shortlm.text import Windows, open_windows
from shortlm.text.mixture import Mixture, facts, open_rows, unused
from shortlm.text.records import Row
from shortlm.text.rows import RecordRows

SAMPLE = 512  # rows whose mean length stands for all
PAD = 0  # any token: nothing looks at it
CHECKPOINTS = 10  # validations of a phase
Say = Callable[[str], object]


@dataclass(frozen=True)
class Work:
    """A phase's data and how it is cut into steps."""

    rows: Mixture
    steps: int
    warmup: int
    micro_batches: int  # per step, over all processes
    validation: dict[str, Sequence[Row]]
    pad: int
    micro_tokens: int
    sample: list[Row]
    teacher: Teacher | None = None

    @property
    def tokens_per_row(self) -> float:
        """Mean over the sample."""
        return sum(len(row.ids) for row in self.sample) / len(self.sample)

    def validation_batches(self) -> dict[str, list[MicroBatch]]:
        """Every set in micro-batches."""
        return {name: validation_batches(rows, self.micro_tokens, self.pad) for name, rows in self.validation.items()}


def prepare_work(files: ModelFiles, settings: PhaseSettings, processes: int) -> Work:
    """Open the data and work out steps and micro-batches. Raises RecipeError or TextError."""
    if settings.batch % processes:
        raise RecipeError(f"--batch {settings.batch}: is no multiple of the {processes} processes")
    rows = open_rows(settings, files.tokenizer, vocabulary(files.config))
    records = rows.records()
    sample = rows.first(min(SAMPLE, records or SAMPLE))
    micro_tokens = settings.micro_tokens or tokens_per_call(files.device, training=True)
    validation = rows.held_out
    for text in settings.validate_on:
        windows = open_windows(text.for_model(files.settings.model), files.tokenizer, vocabulary(files.config))
        validation[unused(windows.facts.source, validation)] = _as_rows(windows)
    count = micro_batch_count(sample, settings.batch, micro_tokens, processes)
    steps = step_count(settings, sum(len(row.ids) for row in sample) / len(sample), records)
    return Work(rows, steps, warmup_steps(settings, steps), count, validation, PAD, micro_tokens, sample)


def _as_rows(windows: Windows) -> list[Row]:
    pairs = zip(windows.ids_BT.tolist(), windows.keep_BT.tolist(), strict=True)
    kept = [[token for token, keep in zip(*pair, strict=True) if keep] for pair in pairs]
    return [Row(ids, list(ids)) for ids in kept]


def train_phase(
    files: ModelFiles, settings: PhaseSettings, heal: HealSettings, number: int, work: Work, folder: Path, log: Path,
    say: Say,
) -> Phase:  # fmt: skip
    """Train, going on from the last complete checkpoint in `folder`. All processes call this; returns the record."""
    from shortlm.heal.training import HealTrainer, training_arguments

    started = time.perf_counter()
    if files.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(files.device)
    rank, processes = ranks()
    kind = precision(settings, files.device)
    args = training_arguments(
        folder, settings, heal, work.steps, work.warmup, work.micro_batches // processes, files.device,
        kind == "bfloat16",
    )  # fmt: skip
    load_whole()
    model = open_trained(files, settings)
    say(f"phase {number}: {precision_words(model, kind, settings.optimizer)}")
    if settings.attend == "document":
        check_apart(model)
    steps = Steps(work.rows, settings.batch, work.micro_batches, work.pad, rank, processes)
    journal = Journal(log, number, work.steps)
    checkpoint = last_checkpoint(folder)
    journal.resume_from(checkpoint.position.step if checkpoint else -1, checkpoint.seconds if checkpoint else 0.0)
    wait_for_all()  # before the first process writes what the others read
    if checkpoint:
        _resume(steps, checkpoint, work)
        say(f"phase {number}: goes on after step {checkpoint.position.step} of {work.steps}")
    every = settings.eval_every or max(1, math.ceil(work.steps / CHECKPOINTS))
    trainer = HealTrainer(
        model,
        args,
        steps,
        work.validation_batches(),
        _loss(model, settings, work.teacher),
        journal,
        every,
        files.settings,
    )
    if fsdp():
        _sum_in_float32(trainer)
    args.eval_on_start = bool(work.validation) and checkpoint is None
    if checkpoint is None or checkpoint.position.step < work.steps:
        with quiet():
            trainer.start(checkpoint.folder if checkpoint else None)
    journal.settle()
    end = steps.positions[max(steps.positions)]
    best = journal.best(set(checkpoint_folders(folder))) if settings.keep == "best" else None
    return Phase(
        method=settings.method, settings=settings.model_dump(mode="json"), data=_facts(work, settings),
        validation_data=_validation_facts(work), steps=work.steps, processes=processes, precision=kind,
        trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
        parameters=sum(p.numel() for p in model.parameters()), log=journal.log, validations=journal.validations,
        kept_step=best or work.steps, padding=end.padding / max(1, end.tokens + end.padding),
        peak_bytes=peak_bytes(files.device), seconds=round(time.perf_counter() - started, 3),
    )  # fmt: skip


def _resume(steps: Steps, checkpoint: Checkpoint, work: Work) -> None:
    """Set the data to where the checkpoint is. Raises HealError for a position that is none."""
    mark, hint = checkpoint.folder / COMPLETE, hint_for(checkpoint.folder)
    if checkpoint.position.step > work.steps:
        raise damaged(mark, f"it tells of step {checkpoint.position.step} of {work.steps}", hint)
    with readable(mark, hint):
        steps.restore(checkpoint.position)


def _sum_in_float32(trainer: Any) -> None:
    """FSDP2 sums gradients in the type of the matrix products; DDP, and we, in float32."""
    if not trainer.is_fsdp_enabled:
        raise HealError("FSDP was asked for and the model would not be sharded; check the accelerate config")
    plugin = trainer.accelerator.state.fsdp_plugin
    if plugin.mixed_precision_policy is not None:
        policy = dataclasses.replace(plugin.mixed_precision_policy, reduce_dtype=torch.float32)
        plugin.mixed_precision_policy = policy


def _loss(model: Any, settings: PhaseSettings, teacher: Teacher | None) -> Loss:
    if teacher is None:
        return Loss(model)
    return Distillation(model, teacher.open(), teacher.blocks, settings.kl, settings.temperature, settings.hidden)


def _facts(work: Work, settings: PhaseSettings) -> DataFacts:
    name = ", ".join(source.name for source in work.rows.sources)
    if work.rows.records() is None:
        return facts(work.sample, name, settings.seed)
    records = (row for source in work.rows.sources if isinstance(source, RecordRows) for row in source)
    return facts(records, name, settings.seed)


def _validation_facts(work: Work) -> dict[str, DataFacts]:
    return {name: facts(rows, name, None) for name, rows in work.validation.items()}


def peak_bytes(device: torch.device) -> int:
    """The most memory so far: of the accelerator (in this phase), or resident of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
