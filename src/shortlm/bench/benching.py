"""The verb: run models in turns on every case, so that the machine's drift falls on all of them alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch

from shortlm.artifacts import BenchedModel, Benchmark, Breakdown, Cell, Limit, provenance
from shortlm.bench.breakdown import breakdowns
from shortlm.bench.cases import Case, cases, refuse_beyond_context
from shortlm.bench.clock import device_name
from shortlm.bench.limits import limits
from shortlm.bench.runners import Runner
from shortlm.errors import ModelError
from shortlm.model import ModelFiles, free_memory, open_files
from shortlm.progress import track
from shortlm.recipe import BenchSettings, ModelSettings, WorkloadSettings

TURNS = 2  # how often each model is loaded when they don't fit together
FILLED = 0.6  # share of the free memory that the weights of all models may take


def bench(
    models: list[ModelSettings],
    settings: BenchSettings,
    roles: list[str],
    key: str | None = None,
    say: Callable[[str], object] = lambda line: None,
) -> Benchmark:
    """Measure models side by side; the first one is what the others are compared with.

    Raises ModelError for a device that isn't there, a model that can't generate or doesn't fit, and for lengths beyond
    a model's context.
    """
    started = time.perf_counter()
    files = [open_files(model) for model in models]
    found = cases(settings, files[0].tokenizer)
    for model in files:
        refuse_beyond_context(found, model.settings.model, _context(model.config))
    if settings.backend == "vllm":
        from shortlm.bench.vllm_backend import VllmFleet

        fleet: Any = VllmFleet(files, settings, roles)
    else:
        fleet = Fleet(files, settings, roles)
    dtype = str(files[0].dtype).removeprefix("torch.")
    for number, group in enumerate(fleet.visits()):
        fleet.visit(group, found, number, say)
    return Benchmark(
        models=fleet.models(), device=device_name(files[0].device), backend=fleet.name, interleaved=fleet.together,
        sampling=_sampling(settings.workloads), cells=list(fleet.cells.values()), breakdowns=fleet.breakdowns,
        limits=fleet.limits,
        provenance=provenance(str(files[0].device), dtype, round(time.perf_counter() - started, 3), key),
    )  # fmt: skip


class Fleet:
    """All models and what was measured of them: together in memory if they fit, else one after the other, twice."""

    def __init__(self, files: list[ModelFiles], settings: BenchSettings, roles: list[str]):
        self.files, self.settings, self.roles = files, settings, roles
        self.cells: dict[tuple[str, Case], Cell] = {}
        self.facts: dict[str, BenchedModel] = {}
        self.breakdowns: list[Breakdown] = []
        self.limits: list[Limit] = []
        needed = [f.checkpoint.nbytes_as(f.dtype.itemsize) for f in files]
        free = free_memory(files[0].device)
        if max(needed) > FILLED * free:
            name = files[needed.index(max(needed))].settings.model
            raise ModelError(f"{name}: {max(needed):,} bytes of weights don't leave room to run in {free:,}; free some")
        self.together = sum(needed) <= FILLED * free
        self.name = f"transformers, {settings.cache} cache" + (", compiled" if settings.compile else "")

    def models(self) -> list[BenchedModel]:
        """In the order they were given."""
        return [self.facts[role] for role in self.roles]

    def visits(self) -> list[list[int]]:
        """Which models are in memory at the same time, one time after the other."""
        everyone = list(range(len(self.files)))
        return [everyone] if self.together else [[i] for _ in range(TURNS) for i in everyone]

    def visit(self, group: list[int], found: list[Case], number: int, say: Callable[[str], object]) -> None:
        """Measure the models of a group on all cases."""
        runners = [Runner(self.files[i].open(streamed=False), self.settings, self.roles[i]) for i in group]
        turns = 1 if self.together else TURNS
        fresh = [r for r in runners if r.role not in self.facts]
        for runner in fresh:
            self.facts[runner.role] = runner.facts
        for case in track(found, "bench"):
            say(f"batch {case.batch}, prompt {case.prompt_tokens}, output {case.output_tokens}")
            able = [r for r in runners if self._first(r, case)]
            rounds = case.workload.runs // turns + (number < len(self.files) and case.workload.runs % turns)
            measure(able, case, rounds, lambda r, t, case=case: self.cells[r.role, case].runs.append(t))
        if fresh:
            self._more(fresh, found)
        runners.clear()
        _tidy()

    def _first(self, runner: Runner, case: Case) -> bool:
        """The cell with its memory; False if the case doesn't fit."""
        if (runner.role, case) in self.cells:
            return self.cells[runner.role, case].failed is None
        cell = Cell(
            role=runner.role, batch=case.batch, prompt_tokens=case.prompt_tokens, output_tokens=case.output_tokens
        )
        self.cells[runner.role, case] = cell
        try:
            cell.peak_bytes, cell.cache_bytes = runner.memory(case)
        except torch.OutOfMemoryError:
            cell.failed = "out of memory"
        _tidy()
        return cell.failed is None

    def _more(self, runners: list[Runner], found: list[Case]) -> None:
        """Breakdown and limits, on the first case that writes more than a token."""
        case = next((c for c in found if c.output_tokens > 1), None)
        if case is None:
            return
        if self.settings.breakdown and not self.settings.compile:  # compiled code has no blocks to be timed
            self.breakdowns += breakdowns(runners, case)
        if self.settings.limits:
            for runner in runners:
                with alone(runner, runners):
                    self.limits += limits(runner, case, self.settings.largest)


@contextmanager
def alone(runner: Runner, runners: list[Runner]) -> Generator[None, None, None]:
    """The other models leave the accelerator for a while, so that one finds all of its memory free."""
    others = [r for r in runners if r is not runner and r.device.type != "cpu"]
    for other in others:
        other.model.to("cpu")
    _tidy()
    try:
        yield
    finally:
        for other in others:
            other.model.to(other.device)


def measure(runners: list[Any], case: Case, rounds: int, keep: Callable[[Any, Any], None]) -> None:
    """Rounds in which every runner has its turn, in alternating order; warm-up first."""
    for number in range(-case.workload.warmup, rounds):
        for runner in runners if number % 2 == 0 else runners[::-1]:
            timing = runner.time(case, seed=number + case.workload.warmup)
            if number >= 0:
                keep(runner, timing)


def _tidy() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _context(config: Any) -> int | None:
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def _sampling(workloads: list[WorkloadSettings]) -> str:
    said = {
        "likeliest token" if not w.temperature else f"temperature {w.temperature:g}, top-k {w.top_k}, top-p {w.top_p:g}"
        for w in workloads
    }
    return "; ".join(sorted(said))
