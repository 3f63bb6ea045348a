"""Every figure as one flat row: results.json and results.csv, for tables and plots of one's own."""

from __future__ import annotations

import csv
import io
import json
import math
from functools import partial
from pathlib import Path
from typing import Any

from shortlm.artifacts import Benchmark, CutPlan, Measurement
from shortlm.outputs import write_text
from shortlm.report.evidence import Evidence
from shortlm.report.quality import by_text, comparison, perplexity_error
from shortlm.report.repair import repair_of
from shortlm.report.search import ways
from shortlm.report.speed import limit_pairs, shares, speed_rows
from shortlm.report.tasks import task_rows

COLUMNS = ("model", "name", "kind", "of", "metric", "value", "stderr", "n", "unit")


def result_rows(evidence: Evidence) -> list[dict[str, Any]]:
    """One row per figure. `model` is its role, `of` the text, task or case, `n` windows, questions or runs."""
    measurements, benchmark = evidence.measurements, evidence.benchmark
    rows = [row for m in measurements for row in _quality(m)] + _differences(measurements)
    names = {m.role: m.model.name for m in (benchmark.models if benchmark else [])}
    rows += [row | {"name": names[row["model"]]} for row in _speed(benchmark)]
    rows += _searched(evidence.plan) if evidence.plan else []
    rows += _repaired(evidence)
    rows = [row for row in rows if math.isfinite(row["value"])]  # one run has no interval
    return [row | {"stderr": None} if row["stderr"] and not math.isfinite(row["stderr"]) else row for row in rows]


def _row(
    model: str, kind: str, of: str, metric: str, value: Any, stderr: Any = None, n: Any = None, unit: str = ""
) -> dict:
    return dict(zip(COLUMNS, (model, "", kind, of, metric, value, stderr, n, unit), strict=True))


def _quality(m: Measurement) -> list[dict[str, Any]]:
    rows = [
        _row(m.role, "size", "model", "parameters", m.model.parameters),
        _row(m.role, "size", "model", "blocks", m.model.n_blocks),
        _row(m.role, "size", "files", "weights", m.bytes, unit="bytes"),
    ]
    for text, p in by_text(m).items():
        windows = p.data.sequences
        rows.append(_row(m.role, "perplexity", text, "perplexity", p.perplexity, perplexity_error(p), windows))
        rows.append(
            _row(m.role, "perplexity", text, "nats_per_token", p.nats_per_token, p.stderr_nats, windows, "nats")
        )
    rows += [_row(m.role, "task", t.task, t.metric, t.value, t.stderr, t.questions) for t in m.tasks]
    others = [(t, name, value) for t in m.tasks for name, value in t.metrics.items() if name != t.metric]
    rows += [_row(m.role, "task", t.task, n, value, t.stderrs.get(n), t.questions) for t, n, value in others]
    asked = {t.task: t.questions for t in m.tasks}
    for t in m.task_means:
        rows.append(_row(m.role, "task mean", t.name, "mean", t.value, t.stderr, sum(asked[name] for name in t.tasks)))
    if m.fluency:
        f = m.fluency
        rows.append(_row(m.role, "fluency", "samples", "repeated 4-grams", f.repeated, f.repeated_stderr, f.texts))
        rows += [
            _row(m.role, "fluency", "samples", f"distinct-{n}", v, None, f.texts) for n, v in enumerate(f.distinct, 1)
        ]
    return [row | {"name": m.model.name} for row in rows]


def _differences(measurements: list[Measurement]) -> list[dict[str, Any]]:
    """To the reference: nats of every text, every task and mean with its p-value."""
    names, rows = {m.role: m.model.name for m in measurements}, []
    for r in comparison(measurements):
        if r.difference:
            d, n = r.difference, r.result.data.sequences
            rows.append(_row(r.role, "perplexity", r.text, "difference to the reference", d.nats, d.stderr, n, "nats"))
    for t in task_rows(measurements):
        if t.difference:
            d, what = t.difference, f"{t.metric}, difference to the reference"
            rows.append(_row(t.role, "task", t.task, what, d.value, d.stderr, t.questions))
            rows += [_row(t.role, "task", t.task, f"{what}, p", d.p, None, t.questions)] if d.p is not None else []
    return [row | {"name": names[row["model"]]} for row in rows]


def _speed(benchmark: Benchmark | None) -> list[dict[str, Any]]:
    rows = []
    for r in speed_rows(benchmark):
        found = [
            ("latency, median", r.latency, "s"), ("latency, lower quartile", r.quartiles[0], "s"),
            ("latency, upper quartile", r.quartiles[1], "s"), ("latency, mean", r.mean, "s"),
            ("latency, population standard deviation", r.deviation, "s"), ("time to first token", r.first_token, "s"),
            ("time per output token", r.per_token, "s"), ("throughput", r.tokens_per_second, "tokens/s"),
            ("peak memory", r.peak_bytes, "bytes"), ("KV cache", r.cache_bytes, "bytes"),
            ("GPU utilisation", r.utilisation, "share"), ("energy per token", r.joules_per_token, "J"),
            ("speed-up", r.ratio.value if r.ratio else None, "times"),
            ("speed-up, lower end", r.ratio.low if r.ratio else None, "times"),
            ("speed-up, upper end", r.ratio.high if r.ratio else None, "times"),
        ]  # fmt: skip
        rows += [_row(r.role, "speed", r.case.words, m, v, None, r.runs, u) for m, v, u in found if v is not None]
    for s in shares(benchmark):
        b = s.breakdown
        parts = (("blocks", b.blocks), ("head", b.head), ("rest", b.rest))
        rows += [_row(b.role, "decoding step", f"batch {b.batch}", part, v, None, b.steps, "s") for part, v in parts]
    for m in benchmark.models if benchmark else ():
        rows.append(_row(m.role, "size", "memory", "weights", m.weight_bytes, unit="bytes"))
    for x, _ in limit_pairs(benchmark):
        lengths = f"{x.prompt_tokens} + {x.output_tokens} tokens" if x.kind == "batch" else f"batch {x.batch}"
        what = f"largest {x.kind} in {x.budget_bytes} bytes, stopped by {x.stopped_by}"
        rows.append(_row(x.role, "limit", lengths, what, x.value))
    return rows


def _searched(plan: CutPlan) -> list[dict[str, Any]]:
    """What the last set of every way of choosing costs and took; the way stands in the place of a model's role."""
    search, rows = plan.search, []
    if search is None:
        return []
    for way in ways(plan):
        texts = (("search text", way.last.seen, search.data), ("held-out text", way.last.held_out, search.held_out))
        for text, rise, data in texts:
            if rise:
                windows = data.sequences if data else None
                rows.append(_row(way.name, "search", text, "added loss", rise.nats, rise.stderr, windows, "nats"))
        rows.append(_row(way.name, "search", "search", "block forwards", way.block_forwards))
        if way.last.share is not None:
            rows.append(_row(way.name, "search", "model", "parameters left out", way.last.share, unit="share"))
    return [row | {"name": plan.model.name} for row in rows]


def _repaired(evidence: Evidence) -> list[dict[str, Any]]:
    """The losses that the repair compared on its validation windows."""
    step = repair_of(evidence)
    if step is None:
        return []
    loss, row = step.loss, partial(_row, kind="repair", of="validation windows", n=step.validation, unit="nats")
    rows = [row(name, metric="nats_per_token", value=getattr(loss, name)) for name in ("dense", "cut", "repaired")]
    rows.append(
        row("repaired", metric="difference to the cut model", value=loss.repaired - loss.cut, stderr=loss.stderr)
    )
    return [row | {"name": step.against.name if row["model"] == "dense" else ""} for row in rows]


def write_results(folder: Path, evidence: Evidence, force: bool = False) -> None:
    """results.json and results.csv in `folder`."""
    rows = result_rows(evidence)
    write_text(folder / "results.json", json.dumps(rows, indent=1, allow_nan=False) + "\n", force)
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_text(folder / "results.csv", text.getvalue(), force)
