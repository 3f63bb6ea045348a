"""Quality against what it costs: one point per model, by size or by speed."""

from __future__ import annotations

from dataclasses import dataclass

from shortlm.artifacts import Benchmark, Measurement
from shortlm.report.quality import by_text, perplexity_error
from shortlm.report.speed import CaseName, main_case, speed_rows


@dataclass(frozen=True)
class Point:
    """A model: cost or speed, quality, and the standard error of the quality."""

    role: str
    x: float
    y: float
    stderr: float | None


@dataclass(frozen=True)
class Quality:
    """One number for how good each model is."""

    label: str
    values: dict[str, tuple[float, float | None]]
    by_factors: bool = False  # whether differences are factors, as of perplexities


def quality(measurements: list[Measurement]) -> Quality | None:
    """The first mean over tasks that all have, else the first task, else the perplexity of the first text."""
    return next(iter(qualities(measurements)), None)


def qualities(measurements: list[Measurement]) -> list[Quality]:
    """All that every model has: means over tasks, tasks, perplexities on the same windows."""
    if len(measurements) < 2:
        return []
    found = []
    for name in (mean.name for mean in measurements[0].task_means):
        means = {m.role: (t.value, t.stderr) for m in measurements for t in m.task_means if t.name == name}
        found.append(Quality(f"{name} (mean of tasks)", means))
    for key in (task.key for task in measurements[0].tasks):
        tasks = {m.role: (t.value, t.stderr) for m in measurements for t in m.tasks if t.key == key}
        found.append(Quality(key, tasks))
    for text in by_text(measurements[0]):
        texts = {m.role: by_text(m)[text] for m in measurements if text in by_text(m)}
        if len({p.data.sha256 for p in texts.values()}) == 1:
            values = {role: (p.perplexity, perplexity_error(p)) for role, p in texts.items()}
            found.append(Quality(f"perplexity, {text} (lower is better)", values, by_factors=True))
    return [good for good in found if len(good.values) == len(measurements)]


def by_bytes(measurements: list[Measurement]) -> dict[str, float]:
    """Of three models or more the weights on disk, where some have fewer bits for a parameter than others."""
    bits = {m.role: m.bytes / m.model.parameters for m in measurements if m.bytes}
    if len(measurements) < 3 or len(bits) < len(measurements) or max(bits.values()) < 1.2 * min(bits.values()):
        return {}
    return {m.role: float(m.bytes) for m in measurements}


def by_size(measurements: list[Measurement]) -> list[Point]:
    """Against parameters."""
    found = quality(measurements)
    return [] if found is None else [Point(m.role, m.model.parameters, *found.values[m.role]) for m in measurements]


def by_latency(measurements: list[Measurement], benchmark: Benchmark | None) -> tuple[list[Point], str]:
    """Against milliseconds for each token of the smallest batch that all models ran, and what case that is; nothing
    where there is one batch size only, which `by_speed` shows.
    """
    cases = _shared_cases(benchmark)
    if len({case.batch for case in cases}) < 2:
        return [], ""
    case = min(cases, key=lambda c: c.batch)
    times = {r.role: r.per_token for r in speed_rows(benchmark) if r.case == case and r.per_token is not None}
    return _points(measurements, {role: 1000 * seconds for role, seconds in times.items()}), case.words


def by_throughput(measurements: list[Measurement], benchmark: Benchmark | None) -> tuple[list[Point], str]:
    """Against tokens per second of the largest batch that all models ran, and what case that is."""
    cases = _shared_cases(benchmark)
    if len({case.batch for case in cases}) < 2:
        return by_speed(measurements, benchmark)
    case = max(cases, key=lambda c: c.batch)
    speeds = {row.role: row.tokens_per_second for row in speed_rows(benchmark) if row.case == case}
    return _points(measurements, speeds), case.words


def _shared_cases(benchmark: Benchmark | None) -> list[CaseName]:
    """Those with output that all models ran."""
    rows = speed_rows(benchmark)
    wanted = {m.role for m in benchmark.models} if benchmark else set()
    cases = [c for c in dict.fromkeys(r.case for r in rows) if c.output_tokens]
    return [c for c in cases if {r.role for r in rows if r.case == c} == wanted]


def _points(measurements: list[Measurement], costs: dict[str, float]) -> list[Point]:
    found = quality(measurements)
    points = [Point(role, costs[role], *found.values[role]) for role in found.values if role in costs] if found else []
    return points if len(points) > 1 else []


def by_speed(measurements: list[Measurement], benchmark: Benchmark | None) -> tuple[list[Point], str]:
    """Against tokens per second of the first case that all models ran, and what case that is."""
    case = main_case(benchmark)
    if case is None:
        return [], ""
    speeds = {row.role: row.tokens_per_second for row in speed_rows(benchmark) if row.case == case}
    return _points(measurements, speeds), case.words
