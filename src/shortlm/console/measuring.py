"""Of measuring: perplexities, tasks, samples; speed and memory."""

from __future__ import annotations

from rich.text import Text

from shortlm.artifacts import Benchmark, Measurement, TaskResult
from shortlm.console.printing import Grid, tell
from shortlm.sizes import duration, gib, significant


def show_measurement(measurement: Measurement) -> None:
    """Perplexities with standard errors, and the sample."""
    for p in measurement.perplexities:
        value = _with_error(p.perplexity, None if p.stderr_nats is None else p.perplexity * p.stderr_nats)
        tokens = sum(p.tokens_per_sequence)
        tell(
            f"{p.text}: perplexity {value} ({tokens:,} tokens, BOS: {p.data.bos})"
            + ("; healed on this text" * p.healed_on)
        )
    if measurement.tasks:
        _show_tasks(measurement)
    if measurement.fluency:
        share, shown = f"{measurement.fluency.repeated:.1%}", measurement.text_fluency
        beside = f" ({shown.repeated:.1%} in the text itself)" if shown else ""
        tell(f"samples ({measurement.sampling}): {share} of 4-grams repeated{beside}")
    for number, sample in enumerate(measurement.samples, start=1):
        if len(measurement.samples) > 1:
            tell(f"--- sample {number}")
        tell(Text(sample.prompt, style="dim") + Text(sample.text))


def _show_tasks(measurement: Measurement) -> None:
    """A row per task, with all its metrics; the main one, which means and comparisons take, has a mark."""
    tasks = measurement.tasks
    metrics = list(dict.fromkeys(name for t in tasks for name in (t.metric, *sorted(t.metrics))))
    table = Grid("task", *metrics, "shots", "questions")
    for t in tasks:
        table.add(t.task, *(_metric(t, name) for name in metrics), str(t.shots), f"{t.questions:,}")
    table.show()
    if len(metrics) > 1:
        tell("* the main metric of a task, of which means are taken")
    for m in measurement.task_means:
        tell(f"{m.name}, mean of {len(m.tasks)}: {_with_error(m.value, m.stderr)}")


def _metric(task: TaskResult, name: str) -> str:
    """A value with its standard error, as far as they are known."""
    if name == task.metric:
        return _with_error(task.value, task.stderr) + " *" * (len(task.metrics) > 1)
    return _with_error(task.metrics[name], task.stderrs.get(name)) if name in task.metrics else ""


def _with_error(value: float, error: float | None) -> str:
    return f"{value:.4f}" + (f" ± {error:.4f}" if error is not None else "")


def show_benchmark(benchmark: Benchmark) -> None:
    """One row per case and model, then where a step's time goes, what fits, and what was too noisy to tell."""
    from shortlm.report.speed import bench_notes, limit_pairs, noise_warnings, shares, speed_rows

    kind = f"{benchmark.backend}, {benchmark.provenance.dtype}; {benchmark.sampling}"
    tell(f"{benchmark.device}: {kind}")
    table = Grid("batch", "tokens", "model", "latency", "first", "each", "tokens/s", "speed-up", "peak", keys=3)
    for r in speed_rows(benchmark):
        first, later = (duration(t) if t is not None else "-" for t in (r.first_token, r.per_token))
        interval = f" ({r.ratio.low:.2f} to {r.ratio.high:.2f})" if r.ratio else ""
        ratio = f"{r.ratio.value:.2f}{interval}" if r.ratio else "-"
        peak = gib(r.peak_bytes) if r.peak_bytes else "-"
        lengths, speed = f"{r.case.prompt_tokens}+{r.case.output_tokens}", significant(r.tokens_per_second)
        table.add(str(r.case.batch), lengths, r.role, duration(r.latency), first, later, speed, ratio, peak)
    table.show()
    for cell in benchmark.cells:
        if cell.failed:
            tell(f"{cell.role}: batch {cell.batch}, {cell.prompt_tokens} + {cell.output_tokens}: {cell.failed}")
    for s in shares(benchmark):
        b = s.breakdown
        parts = f"blocks {duration(b.blocks)}, lm_head {duration(b.head)}, rest {duration(b.rest)}"
        best = f"; {s.speedup:.2f} times as fast, {s.ideal:.2f} expected" if s.ideal and s.speedup else ""
        tell(f"a step of {b.role}: {parts}{best}")
    for limit, _ in limit_pairs(benchmark):
        case = (
            f"{limit.prompt_tokens}+{limit.output_tokens} tokens" if limit.kind == "batch" else f"batch {limit.batch}"
        )
        most = f"{limit.role}, {case}: largest {limit.kind} {limit.value:,} in {gib(limit.budget_bytes)}"
        weights = next(m.weight_bytes for m in benchmark.models if m.role == limit.role)
        none = f"; the weights alone take {gib(weights)}" if not limit.value else ""
        tell(f"{most} (stopped by {limit.stopped_by}{none})")
    for note in bench_notes(benchmark):
        tell(f"note: {note}")
    for warning in noise_warnings(benchmark):
        tell(f"noisy: {warning}")
