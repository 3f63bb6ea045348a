"""Tasks before and after: every result beside the reference's, with the significance of the difference.

Where both models answered the same questions, they are compared question by question: what both get right or wrong says
nothing about the difference. If every question is right or wrong, the p-value is McNemar's exact one (a binomial test
on the questions that one model got right and the other wrong); else it is from the normal distribution.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from shortlm.artifacts import Measurement, TaskMean, TaskResult
from shortlm.report.roles import reference_of
from shortlm.statistics import independent_stderr, mcnemar, normal_p, stderr

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class TaskDifference:
    """Model minus reference. `p`: how likely so large a difference is if the two are equally good, two-sided."""

    value: float
    stderr: float | None
    p: float | None
    paired: bool

    @property
    def sure(self) -> bool:
        """Whether chance alone would rarely give it."""
        return self.p is not None and self.p < SIGNIFICANT


@dataclass(frozen=True)
class TaskRow:
    """One model on one task, or on the mean of several (`mean_of` of them)."""

    task: str
    metric: str
    role: str
    value: float
    stderr: float | None
    questions: int
    difference: TaskDifference | None
    generates: bool = False
    mean_of: int = 0
    is_share: bool = False  # of right answers
    available: int = 0  # questions that there are
    chance: float | None = None  # what guessing would give
    others: tuple[tuple[str, float, float | None], ...] = ()  # other metrics with their standard errors


def task_rows(measurements: list[Measurement]) -> list[TaskRow]:
    """A row per task and model in the order of `measurements`, then one per mean and model."""
    first = reference_of(m.role for m in measurements if m.tasks)
    reference = next((m for m in measurements if m.role == first), None)
    keys = dict.fromkeys(task.key for m in measurements for task in m.tasks)
    rows = [row for key in keys for row in _of_task(key, measurements, reference)]
    means = dict.fromkeys(mean.name for m in measurements for mean in m.task_means)
    return rows + [row for name in means for row in _of_mean(name, measurements, reference)]


def _of_task(key: str, measurements: list[Measurement], reference: Measurement | None) -> Iterator[TaskRow]:
    before = _task(reference, key) if reference else None
    for m in measurements:
        t = _task(m, key)
        if t is not None:
            found = task_difference(before, t) if before and m is not reference else None
            yield TaskRow(
                t.task, t.metric, m.role, t.value, t.stderr, t.questions, found, t.generates, is_share=is_share(t),
                available=t.available, chance=t.chance, others=_others(t),
            )  # fmt: skip


def _others(t: TaskResult) -> tuple[tuple[str, float, float | None], ...]:
    """The metrics beside the main one."""
    return tuple((name, value, t.stderrs.get(name)) for name, value in t.metrics.items() if name != t.metric)


def _chance_of(mean: TaskMean, measured: Measurement) -> float | None:
    """Of guessing in all of its tasks."""
    levels = [t.chance for name in mean.tasks for t in measured.tasks if t.task == name]
    if len(levels) != len(mean.weights) or any(level is None for level in levels):
        return None
    return sum(w * level for w, level in zip(mean.weights, levels, strict=True) if level is not None)


def _of_mean(name: str, measurements: list[Measurement], reference: Measurement | None) -> Iterator[TaskRow]:
    before = _mean(reference, name) if reference else None
    for m in measurements:
        mean = _mean(m, name)
        if mean is not None:
            found = None
            if reference and before and m is not reference:
                found = _mean_difference(reference, before, m, mean)
            members = [t for t in m.tasks if t.task in mean.tasks]
            yield TaskRow(
                name, "mean", m.role, mean.value, mean.stderr, sum(t.questions for t in members), found,
                mean_of=len(mean.tasks), is_share=all(map(is_share, members)),
                available=sum(t.available for t in members), chance=_chance_of(mean, m),
            )  # fmt: skip


def is_share(task: TaskResult) -> bool:
    """Whether the metric is a share of questions, each of which is right or wrong."""
    return bool(task.per_question) and set(task.per_question) <= {0.0, 1.0}


def _task(measurement: Measurement, key: str) -> TaskResult | None:
    return next((task for task in measurement.tasks if task.key == key), None)


def _mean(measurement: Measurement, name: str) -> TaskMean | None:
    return next((mean for mean in measurement.task_means if mean.name == name), None)


def task_difference(before: TaskResult, after: TaskResult) -> TaskDifference:
    """`after` minus `before`; question by question if both answered the same ones."""
    value, paired = after.value - before.value, _same_questions(before, after)
    if paired:
        deltas = [y - x for x, y in zip(before.per_question, after.per_question, strict=True)]
        error = stderr(deltas)
        exact = all(delta in (-1.0, 0.0, 1.0) for delta in deltas)
        p = mcnemar(deltas.count(1.0), deltas.count(-1.0)) if exact else normal_p(value, error)
        return TaskDifference(value, error, p, True)
    error = independent_stderr([before.stderr, after.stderr])
    return TaskDifference(value, error, normal_p(value, error), False)


def _mean_difference(reference: Measurement, before: TaskMean, m: Measurement, mean: TaskMean) -> TaskDifference:
    """The weighted sum of the tasks' differences, whose errors are independent."""
    value = mean.value - before.value
    if mean.tasks != before.tasks or not mean.weights or mean.weights != before.weights:
        return TaskDifference(value, None, None, False)
    found = [
        task_difference(next(t for t in reference.tasks if t.task == n), next(t for t in m.tasks if t.task == n))
        for n in mean.tasks
    ]
    paired = all(f.paired for f in found)
    weighted = [f.stderr if f.stderr is None else w * f.stderr for w, f in zip(mean.weights, found, strict=True)]
    error = independent_stderr(weighted)
    return TaskDifference(value, error, normal_p(value, error), paired)


def _same_questions(a: TaskResult, b: TaskResult) -> bool:
    same = bool(a.questions_sha256) and a.questions_sha256 == b.questions_sha256
    return same and len(a.per_question) == len(b.per_question) > 0
