"""The verb: run models in turns on every case, so that the machine's drift falls on all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from shortlm.artifacts import Benchmark, provenance
from shortlm.bench.cases import Case, cases, sampling_words
from shortlm.bench.chip import device_name
from shortlm.bench.limits import budget_of
from shortlm.bench.load import busy_cores
from shortlm.checkpoint import short_names
from shortlm.errors import RecipeError
from shortlm.model import ModelFiles, open_files
from shortlm.recipe import BenchSettings, ModelSettings, Plain, settings_of
from shortlm.report.speed import load_note


def bench(
    models: Sequence[ModelSettings | Plain],
    settings: BenchSettings | Mapping[str, object] | None = None,
    roles: list[str] | None = None,
    key: str | None = None,
    say: Callable[[str], object] = lambda line: None,
) -> Benchmark:
    """Measure models side by side; the first one is what the others are compared with.

    `roles` are their names in reports, by default the last parts of the models' own.

    Raises ModelError for a device that isn't there, a model that can't generate or doesn't fit, and for lengths beyond
    a model's context; RecipeError for settings that don't fit together.
    """
    started, settings = time.perf_counter(), settings_of(BenchSettings, settings)
    opened = [settings_of(ModelSettings, model) for model in models]
    roles = roles or short_names([model.model for model in opened])
    if len(set(roles)) != len(models):
        raise RecipeError(f"{len(models)} models need as many different roles, not {', '.join(roles)}")
    files, found = check_bench(opened, settings)
    busy, cores = busy_cores()
    if note := load_note(busy, cores):
        say(f"warning: {note}")
    fleet = _fleet(files, settings, roles)
    fleet.measure(found, say)
    seconds, dtype = round(time.perf_counter() - started, 3), str(files[0].dtype).removeprefix("torch.")
    return Benchmark(
        models=fleet.models(), device=device_name(files[0].device), backend=fleet.name, interleaved=fleet.together,
        sampling="; ".join(sorted({sampling_words(case.workload) for case in found})),
        cells=list(fleet.cells.values()), breakdowns=fleet.breakdowns, limits=fleet.limits,
        busy_cores=busy, cores=cores, minutes=settings.minutes, left_out=fleet.left_out,
        provenance=provenance(str(files[0].device), dtype, seconds, key),
    )  # fmt: skip


def check_bench(models: list[ModelSettings], settings: BenchSettings) -> tuple[list[ModelFiles], list[Case]]:
    """The models' files and the cases, with everything refused that can be before a weight is read."""
    files = [open_files(model) for model in models]
    if settings.limits and settings.cache == "static":
        raise RecipeError("--limits: a static cache takes its length at once; leave out --cache static")
    for file in files if settings.limits else ():
        budget_of(file.settings.memory, file.device)
    return files, cases(settings, files)


def _fleet(files: list[ModelFiles], settings: BenchSettings, roles: list[str]) -> Any:
    if settings.backend == "vllm":
        from shortlm.bench.vllm_backend import VllmFleet

        return VllmFleet(files, settings, roles)
    from shortlm.bench.fleet import Fleet

    return Fleet(files, settings, roles)
