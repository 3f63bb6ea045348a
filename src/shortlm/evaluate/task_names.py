"""What may stand in --tasks: tasks and groups of the harness, our own sets of tasks, a main metric behind a colon.

docs/evaluation.md names the seven commonsense tasks with the published metrics and their mean.
"""

from __future__ import annotations

from dataclasses import dataclass

SETS = {
    "commonsense-7": [
        "boolq:acc", "piqa:acc", "hellaswag:acc_norm", "winogrande:acc", "arc_easy:acc", "arc_challenge:acc_norm",
        "openbookqa:acc_norm",
    ],
}  # fmt: skip


@dataclass(frozen=True)
class Wanted:
    """What is asked of the harness: names, main metrics by task, and means over sets of ours."""

    names: list[str]
    metrics: dict[str, str]
    sets: dict[str, list[str]]


def wanted(tasks: list[str], can_write: bool = True) -> Wanted:
    """Sets expanded, each task once; those with a ? behind them only if the model can write."""
    listed = [name.removesuffix("?") for name in tasks if name != "none" and (can_write or not name.endswith("?"))]
    sets = {name: [spec.partition(":")[0] for spec in SETS[name]] for name in listed if name in SETS}
    specs = [spec for name in listed for spec in SETS.get(name, [name])]
    metrics = {task: metric for task, _, metric in (spec.partition(":") for spec in specs) if metric}
    return Wanted(list(dict.fromkeys(spec.partition(":")[0] for spec in specs)), metrics, sets)
