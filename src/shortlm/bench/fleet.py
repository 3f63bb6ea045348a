"""All models of a bench and what was measured of them, on transformers: together in memory if they fit."""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch

from shortlm.artifacts import BenchedModel, Breakdown, Cell, Limit
from shortlm.bench.breakdown import breakdowns
from shortlm.bench.cases import Case, sampling_words
from shortlm.bench.conditions import TimeBudget
from shortlm.bench.limits import limits
from shortlm.bench.runners import Runner
from shortlm.errors import ModelError, is_out_of_memory
from shortlm.model import ModelFiles, free_memory
from shortlm.progress import track
from shortlm.recipe import BenchSettings

FEWEST = 3  # rounds that tell a spread
TURNS = 2  # how often each model is loaded when they don't fit together
FILLED = 0.6  # share of the free memory that the weights of all models may take


class Fleet:
    """Opens the models and measures them; one after the other, twice, if they don't fit together."""

    def __init__(
        self, files: list[ModelFiles], settings: BenchSettings, roles: list[str], budget: TimeBudget | None = None
    ):
        self.budget, self.notes = budget or TimeBudget(None), list[str]()
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

    def measure(self, found: list[Case], say: Callable[[str], object]) -> None:
        """Every model on every case."""
        everyone = list(range(len(self.files)))
        visits = [everyone] if self.together else [[i] for _ in range(TURNS) for i in everyone]
        for number, group in enumerate(visits):
            self._visit(group, found, number, say)
            tidy()  # out here, where nothing holds the models any more

    def _visit(self, group: list[int], found: list[Case], number: int, say: Callable[[str], object]) -> None:
        """Measure the models of a group, which are in memory meanwhile."""
        runners = [Runner(self.files[i].open(streamed=False), self.settings, self.roles[i]) for i in group]
        turns, first = (1 if self.together else TURNS), number < len(self.files)
        for runner in runners:
            self.facts.setdefault(runner.role, runner.facts)
        for case in track(found, "bench"):
            if self._left_out(runners, case):
                continue
            say(case.name)
            able = [r for r in runners if self._fits(r, case, len(runners) > 1)]
            for runner in able:
                runner.forget_cache()
            rounds = case.workload.runs // turns + (first and case.workload.runs % turns)
            if take_turns(able, case, rounds, {r.role: self.cells[r.role, case] for r in able}, self.budget) < rounds:
                self._note(f"{case.name}: fewer than the {case.workload.runs} runs: --minutes was spent")
        if first and not self.budget.spent():
            self._more(runners, found)

    def _left_out(self, runners: list[Runner], case: Case) -> bool:
        """Whether the time budget is spent before a case has begun."""
        begun = any((runner.role, case) in self.cells for runner in runners)
        if begun or not self.budget.spent():
            return False
        for runner in runners:
            self.cells[runner.role, case] = _empty(runner, case, "left out: --minutes was spent")
        self._note(f"{case.name}: left out: --minutes was spent")
        return True

    def _note(self, line: str) -> None:
        if line not in self.notes:
            self.notes.append(line)

    def _fits(self, runner: Runner, case: Case, shared: bool) -> bool:
        """The cell with its memory; False if the case doesn't fit."""
        if (runner.role, case) not in self.cells:
            cell = _empty(runner, case)
            self.cells[runner.role, case] = cell
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
        if case is None:
            return
        if self.settings.breakdown and not self.settings.compile:  # compiled code has no blocks to be timed
            self.breakdowns += breakdowns(runners, case)
        for runner in runners if self.settings.limits else ():
            with alone(runner, runners):
                self.limits += limits(runner, case, self.settings.largest)


def _empty(runner: Runner, case: Case, failed: str | None = None) -> Cell:
    return Cell(
        role=runner.role, batch=case.batch, prompt_tokens=case.prompt_tokens, output_tokens=case.output_tokens,
        sampling=sampling_words(case.workload), failed=failed,
    )  # fmt: skip


def take_turns(
    runners: list[Any], case: Case, rounds: int, cells: dict[str, Cell], budget: TimeBudget | None = None
) -> int:
    """Rounds in which every runner has its turn, in alternating order; warm-up first. Returns how many were done.

    Whoever runs out of memory leaves, with its cell marked. Once the budget is spent no round begins, beyond the first
    few.
    """
    able = list(runners)
    for number in range(-case.workload.warmup, rounds):
        if budget and number >= FEWEST and budget.spent():
            return number
        for runner in able[:] if number % 2 == 0 else able[::-1]:
            try:
                timing = runner.time(case, seed=number + case.workload.warmup)
            except RuntimeError as error:
                fail(cells[runner.role], error, len(runners) > 1)
                able.remove(runner)
                continue
            if number >= 0:
                cells[runner.role].runs.append(timing)
    return rounds


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
