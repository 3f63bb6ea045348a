"""All models of a bench and what was measured of them, on transformers: together in memory if they fit."""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch

from shortlm.artifacts import BenchedModel, Breakdown, Cell, Limit
from shortlm.bench.breakdown import breakdowns
from shortlm.bench.cases import Case
from shortlm.bench.limits import limits
from shortlm.bench.runners import Runner
from shortlm.bench.time_limit import ENOUGH, TimeLimit
from shortlm.errors import ModelError, is_out_of_memory
from shortlm.model import ModelFiles, free_memory
from shortlm.progress import track
from shortlm.recipe import BenchSettings

TURNS = 2  # how often each model is loaded when they don't fit together
FILLED = 0.6  # share of the free memory that the weights of all models may take


class Fleet:
    """Opens the models and measures them; one after the other, twice, if they don't fit together."""

    def __init__(self, files: list[ModelFiles], settings: BenchSettings, roles: list[str]):
        self.files, self.settings, self.roles = files, settings, roles
        self.cells: dict[tuple[str, Case], Cell] = {}
        self.facts: dict[str, BenchedModel] = {}
        self.breakdowns: list[Breakdown] = []
        self.limits: list[Limit] = []
        self.left_out: list[str] = []
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

    def measure(self, found: list[Case], say: Callable[[str], object]) -> None:
        """Every model on every case."""
        everyone = list(range(len(self.files)))
        visits = [everyone] if self.together else [[i] for _ in range(TURNS) for i in everyone]
        extras = (1 if self.together else len(everyone)) * (self.settings.breakdown + self.settings.limits)
        self.time = TimeLimit(self.settings.minutes, len(visits) * len(found) + extras)
        for number, group in enumerate(visits):
            if number >= len(self.files) and self.time.spent:
                break  # all have been there once
            self._visit(group, found, number, say)
            tidy()  # out here, where nothing holds the models any more

    def _visit(self, group: list[int], found: list[Case], number: int, say: Callable[[str], object]) -> None:
        """Measure the models of a group, which are in memory meanwhile."""
        runners = [Runner(self.files[i].open(streamed=False), self.settings, self.roles[i]) for i in group]
        turns, first = (1 if self.together else TURNS), number < len(self.files)
        for runner in runners:
            self.facts.setdefault(runner.role, runner.facts)
        for case in track(found, "bench"):
            if not self._begin(runners, case):
                continue
            say(f"batch {case.batch}, prompt {case.prompt_tokens}, output {case.output_tokens}")
            ended = self.time.rounds_until(-(-ENOUGH // turns))
            able = [r for r in runners if self._fits(r, case, len(runners) > 1)]
            for runner in able:
                runner.forget_cache()
            rounds = case.workload.runs // turns + (first and case.workload.runs % turns)
            take_turns(able, case, rounds, {r.role: self.cells[r.role, case] for r in able}, ended)
        if first:
            self._more(runners, found)

    def _begin(self, runners: list[Runner], case: Case) -> bool:
        """Whether there is time for the case; if not, models that have no runs of it yet are marked."""
        if self.time.begin():
            return True
        for runner in runners:
            cell = self.cells.setdefault((runner.role, case), case.cell(runner.role))
            if not cell.runs and cell.failed is None:
                cell.failed = f"left out, {self.time.reason}"
        return False

    def _fits(self, runner: Runner, case: Case, shared: bool) -> bool:
        """The cell with its memory; False if the case doesn't fit."""
        if (runner.role, case) not in self.cells:
            cell = self.cells[runner.role, case] = case.cell(runner.role)
            try:
                cell.peak_bytes, cell.cache_bytes = runner.memory(case)
            except RuntimeError as error:
                fail(cell, error, shared)
            tidy()
        return self.cells[runner.role, case].failed is None

    def _more(self, runners: list[Runner], found: list[Case]) -> None:
        """Breakdown and limits, on the first case that writes more than a token and fits."""
        fitting = [c for c in found if all(self.cells[r.role, c].failed is None for r in runners)]
        case = next((c for c in fitting if c.output_tokens > 1), None)
        names = ", ".join(runner.role for runner in runners)
        apart = self.settings.breakdown and not self.settings.compile  # compiled code has no blocks to be timed
        if apart and self._time_for(f"the parts of a decoding step, {names}") and case:
            self.breakdowns += breakdowns(runners, case)
        if self.settings.limits and self._time_for(f"limits, {names}") and case:
            for runner in runners:
                with alone(runner, runners):
                    self.limits += limits(runner, case, self.settings.largest)

    def _time_for(self, what: str) -> bool:
        there_is = self.time.begin()
        self.left_out += [] if there_is else [f"{what}: left out, {self.time.reason}"]
        return there_is


def take_turns(
    runners: list[Any],
    case: Case,
    rounds: int,
    cells: dict[str, Cell],
    ended: Callable[[int], bool] = lambda rounds: False,
) -> None:
    """Rounds in which every runner has its turn, in alternating order; warm-up first.

    Whoever runs out of memory leaves, with its cell marked. `ended` is asked before every round, with those done.
    """
    able = list(runners)
    for number in range(-case.workload.warmup, rounds):
        if ended(number):
            break
        for runner in able[:] if number % 2 == 0 else able[::-1]:
            try:
                timing = runner.time(case, seed=number + case.workload.warmup)
            except RuntimeError as error:
                fail(cells[runner.role], error, len(runners) > 1)
                able.remove(runner)
                continue
            if number >= 0:
                cells[runner.role].runs.append(timing)


def fail(cell: Cell, error: RuntimeError, shared: bool) -> None:
    """Mark a case that doesn't fit; any other error goes on."""
    if not is_out_of_memory(error):
        raise error
    cell.failed, cell.runs = "out of memory" + (" beside the other models" if shared else ""), []


@contextmanager
def alone(runner: Runner, runners: list[Runner]) -> Generator[None, None, None]:
    """The other models leave the accelerator for a while, so that one finds all of its memory free."""
    others = [r for r in runners if r is not runner and r.device.type != "cpu"]
    for other in others:
        other.model.to("cpu")
    tidy()
    try:
        yield
    finally:
        for other in others:
            other.model.to(other.device)


def tidy() -> None:
    """Give back what nothing holds."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
