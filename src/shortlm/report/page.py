"""report.html: one file that opens from disk, with everything inside; sections without data are left out.

Everything that artifacts say is untrusted text and goes through the template's autoescape; only our own SVG
(whose texts matplotlib escapes) and the escaped JSON are inserted as they are.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from shortlm.artifacts import Artifact, Benchmark, BlockScores, CutPlan, Fluency, Healing, Manifest, Measurement
from shortlm.outputs import refuse_existing, write_text
from shortlm.report import numbers
from shortlm.report.criteria import explanation
from shortlm.report.headline import headline, key_figures
from shortlm.report.learning import learning_chart
from shortlm.report.origin import data_rows, model_rows, stage_rows, version_rows
from shortlm.report.quality import comparison, dense_first, trained_notes
from shortlm.report.quality_charts import parameters_chart, perplexity_chart, tasks_chart, tradeoff_chart
from shortlm.report.roles import all_roles, colours
from shortlm.report.runs import runs_chart
from shortlm.report.score_charts import ceiling, scores_chart, within_reach
from shortlm.report.speed import bench_notes, limit_pairs, noise_warnings, shares, speed_rows, types_of
from shortlm.report.speed_charts import memory_chart, step_chart, throughput_chart
from shortlm.report.tasks import task_rows
from shortlm.report.tradeoff import Point, by_size, by_speed, quality


def write_page(
    path: Path | str,
    *,
    title: str,
    scores: BlockScores | None,
    plan: CutPlan | None,
    manifest: Manifest | None,
    measurements: list[Measurement],
    settings_yaml: str,
    healing: Healing | None = None,
    benchmark: Benchmark | None = None,
    force: bool = False,
) -> Path:
    """Write the page, whole or not at all, and return its path.

    Without a plan, that of the manifest is shown. Raises OutputError if `path` exists and `force` is off.
    """
    refuse_existing(Path(path), force)
    plan = plan or (manifest.plan if manifest else None)
    measurements = dense_first(measurements)
    page = _environment().get_template("page.html.jinja")
    text = page.render(
        title=title, scores=scores, plan=plan, manifest=manifest, healing=healing, curve=_curve(healing),
        measurements=measurements,
        settings=settings_yaml.strip(), headline=headline(scores, plan, measurements, benchmark),
        figures=key_figures(plan, manifest, measurements, benchmark), benchmark=benchmark,
        speed=speed_rows(benchmark), warnings=noise_warnings(benchmark),
        bench_notes=bench_notes(benchmark), shares=shares(benchmark),
        limits=limit_pairs(benchmark), types=types_of(benchmark) if benchmark else "",
        task_rows=task_rows(measurements), fluent=_fluent(measurements),
        criteria=_criteria(scores, plan), cut_off=_cut_off(scores),
        charts=_charts(scores, plan, measurements) | _bench_charts(measurements, benchmark),
        rows=comparison(measurements), trained=trained_notes(measurements),
        stages=stage_rows(scores, plan, manifest, measurements, benchmark),
        samples=_samples(measurements), equivalence=manifest.equivalence if manifest else None,
        models=model_rows(scores, plan, measurements),
        data=data_rows(scores, measurements), versions=version_rows(scores, plan, manifest, measurements, benchmark),
        artifacts=_artifacts(scores, plan, manifest, healing, measurements, benchmark),
    )  # fmt: skip
    return write_text(path, text, force)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    for name in ("count", "whole", "size", "significant", "duration", "blocks"):
        environment.filters[name] = _typeset(getattr(numbers, name))
    environment.globals |= {
        "with_error": _typeset(numbers.with_error),
        "signed_error": _typeset(_signed_error),
        "chance": _typeset(numbers.chance),
    }
    return environment


def _typeset(function: Any) -> Any:
    return lambda *values: numbers.typeset(function(*values))


def _signed_error(value: float, error: float | None) -> str:
    return numbers.signed(numbers.with_error(value, error))


def _criteria(scores: BlockScores | None, plan: CutPlan | None) -> list[dict[str, Any]]:
    """Per criterion: what it measures, its order of the blocks, and how sure that order is."""
    removed = set(plan.removed) if plan else set()
    shown = max(8, len(removed))
    return [
        {
            "spec": spec, "about": explanation(spec), "values": values, "order": values.order()[:shown],
            "more": len(values.scores) > shown, "agreement": values.rank_agreement,
            "race": values.race if values.race and values.race.early else None,
            "chose": bool(plan and plan.criterion == spec),
        }
        for spec, values in (scores.criteria if scores else {}).items()
    ]  # fmt: skip


def _cut_off(scores: BlockScores | None) -> bool:
    """Whether a chart has bars that are taller than it."""
    dense = scores.base_perplexity if scores else None
    return any(ceiling(*within_reach(values, dense)[:2]) for values in (scores.criteria.values() if scores else ()))


def _charts(scores: BlockScores | None, plan: CutPlan | None, measurements: list[Measurement]) -> dict[str, Any]:
    """Inline SVG: scores and runs by criterion, perplexity, parameters."""
    removed, protected = (plan.removed, plan.protected) if plan else ([], [])
    criteria = scores.criteria if scores else {}
    dense = scores.base_perplexity if scores else None
    rows, tasks = comparison(measurements), task_rows(measurements)
    palette = colours([m.role for m in measurements])
    return {
        "scores": {
            spec: Markup(scores_chart(f"scores-{i}", explanation(spec).name, values, removed, protected, dense))
            for i, (spec, values) in enumerate(criteria.items())
        },
        "runs": {
            spec: Markup(runs_chart(f"runs-{i}", explanation(spec).name, values.table, removed))
            for i, (spec, values) in enumerate(criteria.items())
            if values.table
        },
        "perplexity": Markup(perplexity_chart("perplexity", rows, palette)) if rows else None,
        "parameters": Markup(parameters_chart("parameters", measurements, palette)) if measurements else None,
        "tasks": Markup(tasks_chart("tasks-chart", tasks, palette)) if tasks else None,
    }


def _bench_charts(measurements: list[Measurement], benchmark: Benchmark | None) -> dict[str, Any]:
    """Inline SVG: throughput by output length, memory, a step's parts, quality against size and speed."""
    palette, rows = colours(all_roles(measurements, benchmark)), speed_rows(benchmark)
    lengths = dict.fromkeys((r.case.prompt_tokens, r.case.output_tokens) for r in rows)
    curves = {length: [r for r in rows if (r.case.prompt_tokens, r.case.output_tokens) == length] for length in lengths}
    peaks, models = [row for row in rows if row.peak_bytes], benchmark.models if benchmark else []
    size_points, (speed_points, case) = by_size(measurements), by_speed(measurements, benchmark)
    label = good.label if (good := quality(measurements)) else ""
    by_speed_label, found = f"tokens per second ({case})", shares(benchmark)
    return {
        "throughput": [
            (f"{prompt} tokens of prompt, {output or 'no'} of output",
             Markup(throughput_chart(f"throughput-{i}", curve, palette)))
            for i, ((prompt, output), curve) in enumerate(curves.items())
        ],
        "memory": Markup(memory_chart("memory-chart", peaks, models, palette)) if peaks else None,
        "step": Markup(step_chart("step", found, palette)) if found else None,
        "by_size": _tradeoff("by-size", size_points, "parameters", label, palette),
        "by_speed": _tradeoff("by-speed", speed_points, by_speed_label, label, palette),
    }  # fmt: skip


def _tradeoff(chart: str, points: list[Point], x: str, y: str, palette: dict[str, str]) -> Markup | None:
    return Markup(tradeoff_chart(chart, points, x, y, palette)) if points else None


def _fluent(measurements: list[Measurement]) -> list[tuple[str, Fluency]]:
    """What is known of repetition: of the text itself, then of each model's samples."""
    text = next((m.text_fluency for m in measurements if m.text_fluency), None)
    found = [(m.role, m.fluency) for m in measurements if m.fluency]
    return [("the text itself", text), *found] if text and found else found


def _curve(healing: Healing | None) -> Markup | None:
    return Markup(learning_chart("learning", healing.phases)) if healing else None


def _samples(measurements: list[Measurement]) -> list[dict[str, Any]]:
    """Per prompt: a row for every draw, with what each model wrote. A prompt repeated in the text is shown once."""
    prompts = dict.fromkeys(s.prompt for m in measurements for s in m.samples)
    return [{"prompt": prompt, "rows": _side_by_side(prompt, measurements)} for prompt in prompts]


def _side_by_side(prompt: str, measurements: list[Measurement]) -> list[list[tuple[str, str]]]:
    columns = [
        [(m.role, s.text.removeprefix(prompt).strip()) for s in m.samples if s.prompt == prompt] for m in measurements
    ]
    return [[c[i] for c in columns if i < len(c)] for i in range(max(map(len, columns)))]


def _artifacts(*found: Artifact | list[Measurement] | None) -> Markup:
    """All artifacts as JSON that can't end the script element it stands in."""
    flat = [a for item in found if item for a in (item if isinstance(item, list) else [item])]
    text = json.dumps([a.model_dump(mode="json") for a in flat], separators=(",", ":"), ensure_ascii=True)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
