"""From the harness's results to ours: main metrics, every question's value, means over groups."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from shortlm.artifacts import TaskMean, TaskResult
from shortlm.errors import ModelError
from shortlm.evaluate.task_names import Wanted
from shortlm.statistics import independent_stderr


@dataclass(frozen=True)
class Found:
    """What the tasks gave."""

    tasks: list[TaskResult]
    means: list[TaskMean]


def task_results(results: dict[str, Any], metrics: dict[str, str]) -> list[TaskResult]:
    """A TaskResult for every task (not group) of the harness's results; `metrics` names main ones."""
    return [_task(results, task, metrics.get(task)) for task in results["samples"]]


def _task(results: dict[str, Any], task: str, metric: str | None) -> TaskResult:
    values = {k: float(v) for k, v in results["results"][task].items() if _is_metric(k, v)}
    main = _main(task, values, metric)
    name, _, kind = main.partition(",")
    config = results["configs"][task]
    samples = sorted((s for s in results["samples"][task] if s["filter"] == kind), key=lambda s: s["doc_id"])
    stderrs = {key: error for key in values if (error := _stderr(results["results"][task], key)) is not None}
    return TaskResult(
        task=task, metric=name if kind == "none" else main, value=values[main],
        stderr=stderrs.get(main),
        higher_is_better=bool(results["higher_is_better"].get(task, {}).get(name, True)),
        metrics=_plain(values), stderrs=_plain(stderrs), chance=_chance(config, samples, name),
        shots=results["n-shot"].get(task) or 0,
        version=str(results["versions"].get(task, "")), generates=config.get("output_type") == "generate_until",
        dataset=_dataset(config), per_question=_each(samples, name, values[main]),
        questions_sha256=_digest(samples), questions=results["n-samples"][task]["effective"],
        available=results["n-samples"][task]["original"],
    )  # fmt: skip


def _chance(config: dict[str, Any], samples: list[dict[str, Any]], metric: str) -> float | None:
    """Of a question with n choices 1/n, each of which the harness has asked the model about once."""
    counts = [len(s.get("resps") or ()) for s in samples]
    once = "acc_mutual_info" not in {found.get("metric") for found in config.get("metric_list") or ()}
    if config.get("output_type") != "multiple_choice" or not metric.startswith("acc") or not once or 0 in counts:
        return None
    return math.fsum(1 / n for n in counts) / len(counts) if counts else None


def _is_metric(key: str, value: object) -> bool:
    return "," in key and "_stderr," not in key and isinstance(value, (int, float)) and math.isfinite(value)


def _stderr(found: dict[str, Any], key: str) -> float | None:
    """Of a metric, if the harness has one."""
    name, _, kind = key.partition(",")
    error = found.get(f"{name}_stderr,{kind}")
    return float(error) if isinstance(error, (int, float)) and math.isfinite(error) else None


def _plain(values: dict[str, float]) -> dict[str, float]:
    """By the metrics' names, with a filter behind them only where there is one."""
    return {key.removesuffix(",none"): value for key, value in values.items()}


def _main(task: str, values: dict[str, float], metric: str | None) -> str:
    """The metric asked for, or the task's first."""
    found = next((key for key in values if metric in (None, key.partition(",")[0], key)), None)
    if found is None:
        raise ModelError(f"task '{task}': {metric or 'its metric'} is no number; try --dtype float32, or leave it out")
    return found


def _dataset(config: dict[str, Any]) -> str:
    parts = [str(p) for p in (config.get("dataset_path"), config.get("dataset_name")) if p]
    return "local file" if parts == ["json"] else "/".join(parts) or "made by the task"


def _each(samples: list[dict[str, Any]], metric: str, value: float) -> list[float]:
    """The metric of every question, if the task's value is their mean (of BLEU, say, it isn't)."""
    each = [s.get(metric) for s in samples]
    numbers = [float(v) for v in each if isinstance(v, (bool, int, float))]
    whole = bool(numbers) and len(numbers) == len(each)
    return numbers if whole and math.isclose(math.fsum(numbers) / len(numbers), value, abs_tol=1e-9) else []


def _digest(samples: Iterable[dict[str, Any]]) -> str:
    text = "\n".join(f"{s['doc_id']} {s['doc_hash']} {s['prompt_hash']} {s['target_hash']}" for s in samples)
    return hashlib.sha256(text.encode()).hexdigest()


def means(results: dict[str, Any], tasks: list[TaskResult], asked: Wanted) -> list[TaskMean]:
    """Plain means over our sets, and the groups that the harness gives a value for; those that were asked first."""
    by_name = {task.task: task for task in tasks}
    found = [_mean(name, [by_name[task] for task in members], None) for name, members in asked.sets.items()]
    children = results.get("group_subtasks", {})
    groups = sorted(results.get("groups", {}), key=lambda name: name not in asked.names)
    for group in groups:
        members = [by_name[task] for task in _below(group, children) if task in by_name]
        kinds = {m.metric if "," in m.metric else f"{m.metric},none" for m in members}
        key = kinds.pop() if len(kinds) == 1 else ""
        value = results["results"][group].get(key)
        if _is_metric(key, value):
            found.append(_mean(group, members, float(value)))
    return found


def _below(group: str, children: dict[str, list[str]]) -> list[str]:
    return [
        leaf for name in children.get(group, []) for leaf in (_below(name, children) if name in children else [name])
    ]


def _mean(name: str, members: list[TaskResult], reported: float | None) -> TaskMean:
    """`reported` is the harness's own mean: plain or by the number of questions, whichever it is equal to."""
    plain, total = [1 / len(members)] * len(members), sum(m.questions for m in members)
    choices = [plain, [m.questions / total for m in members]]
    values = [m.value for m in members]
    weights = next(
        (w for w in choices if reported is None or math.isclose(_dot(w, values), reported, abs_tol=1e-9)), []
    )
    weighted = [m.stderr if m.stderr is None else w * m.stderr for w, m in zip(weights, members, strict=False)]
    stderr = independent_stderr(weighted) if weights else None
    value = _dot(weights, values) if reported is None else reported
    return TaskMean(name=name, tasks=[m.task for m in members], weights=weights, value=value, stderr=stderr)


def _dot(a: list[float], b: list[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))
