"""What came out, in one sentence and a handful of figures, each computed from the artifacts."""

from __future__ import annotations

from typing import NamedTuple

from shortlm.artifacts import Benchmark, CutPlan, Measurement, Perplexity
from shortlm.report.evidence import Evidence
from shortlm.report.numbers import change, count, signed, significant, size, typeset, with_error
from shortlm.report.quality import Row, by_text, comparison, cut_of, dense_of, incomparable, result_of
from shortlm.report.repair import changed, repair_of, won_back
from shortlm.report.roles import all_roles
from shortlm.report.speed import SpeedRow, main_case, speed_rows
from shortlm.report.tasks import TaskRow, task_rows
from shortlm.units import ATTENTION, FFN

MOST_CLAUSES = 4  # of a headline, one for each model


class Figure(NamedTuple):
    """A key figure: what, before, after, and a note under it. `after` may be all there is."""

    name: str
    before: str
    after: str
    note: str


def headline(evidence: Evidence) -> str:
    """For example: 4 of 12 blocks removed: 1.77 M → 1.18 M parameters (−33 %), perplexity 3.02 → 3.55 on embedded."""
    scores, plan, measurements, benchmark = evidence.scores, evidence.plan, evidence.measurements, evidence.benchmark
    repaired = _repaired(evidence)
    facts = ", ".join(filter(None, (repaired, _quality(measurements), _tasks(measurements), _speed(benchmark))))
    if plan:
        text = f"{_removed(plan)}: {_parameters(plan)}{', ' + facts if facts else ''}"
    elif len(evidence.roles) > 2:
        return _several(measurements, benchmark)
    elif facts:
        text = facts[0].upper() + facts[1:]
    elif measurements or benchmark:
        return _uncompared(measurements, benchmark)
    elif scores:
        count_of = len(scores.criteria)
        by = f"{count_of} criteria" if count_of > 1 else f"the criterion {next(iter(scores.criteria))}"
        text = f"{scores.model.n_blocks} blocks of {scores.model.name} scored by {by}"
    else:
        return "Nothing was measured."
    return f"{text}."


def key_figures(evidence: Evidence) -> list[Figure]:
    """Blocks, parameters, bytes, quality and speed before and after, as far as they are known."""
    plan, manifest, measurements = evidence.plan, evidence.manifest, evidence.measurements
    found = []
    if not plan and len(evidence.roles) > 2:
        return found
    if plan:
        blocks, kept = plan.model.n_blocks, plan.model.n_blocks - len(plan.removed)
        if plan.removed or not plan.removed_sublayers:
            found.append(_figure("Blocks", blocks, kept, str))
        if plan.removed_sublayers:
            lost = _sublayers(plan)
            found.append(_figure("Attention layers", blocks, kept - lost["attention"], str))
            found.append(_figure("FFN layers", blocks, kept - lost["FFN"], str))
        found.append(_figure("Parameters", plan.model.parameters, plan.parameters_after, count))
    if manifest:
        found.append(_figure("Weights on disk", manifest.bytes_before, manifest.bytes_after, size))
    pair = _pair(measurements)
    if pair:
        before, after = (row.result.perplexity for row in pair)
        ratio = pair[1].difference.ratio if pair[1].difference else 1.0
        note = f"× {significant(ratio, 4)} on {pair[1].text}{_seen(pair[1].result)}"
        note += _after_the_cut(measurements, pair)
        found.append(Figure("Perplexity", significant(before), significant(after), note))
    return found + _task_figures(measurements) + _speed_figures(evidence.benchmark)


def _several(measurements: list[Measurement], benchmark: Benchmark | None) -> str:
    """A clause per model beside the reference; of many models those of the best and the fastest."""
    reference, *others = all_roles(measurements, benchmark)
    base = next((m for m in measurements if m.role == reference), None)
    speeds = {r.role: r.ratio.value for r in speed_rows(benchmark) if r.case == main_case(benchmark) and r.ratio}
    losses = {r.role: r for r in reversed(comparison(measurements)) if r.difference and r.difference.paired}
    clauses = {}
    for role in others:
        m, row = next((m for m in measurements if m.role == role), None), losses.get(role)
        parts = []
        if m and base and m.model.parameters != base.model.parameters:
            parts.append(f"{typeset(change(base.model.parameters, m.model.parameters))} parameters")
        if row and row.difference:
            parts.append(f"perplexity × {significant(row.difference.ratio, 4)}{_seen(row.result)}")
        elif m and base and (why := incomparable(base, m)):
            parts.append(f"perplexity not comparable ({why})")
        if role in speeds:
            parts.append(f"{significant(speeds[role])} times as fast")
        clauses[role] = f"{role}: {', '.join(parts) or 'measured'}"
    if len(others) <= MOST_CLAUSES:
        return f"Beside {reference}, {'; '.join(clauses.values())}."
    ratios = {role: row.difference.ratio for role, row in losses.items() if row.difference}
    return f"{len(others)} models beside {reference}{_best_and_fastest(clauses, ratios, speeds)}."


def _best_and_fastest(clauses: dict[str, str], ratios: dict[str, float], speeds: dict[str, float]) -> str:
    best = min((role for role in clauses if role in ratios), key=ratios.__getitem__, default=None)
    fastest = max((role for role in clauses if role in speeds), key=speeds.__getitem__, default=None)
    told = {"the best and the fastest": best} if best == fastest else {"the best": best, "the fastest": fastest}
    return "".join(f"; {what} is {clauses[role]}" for what, role in told.items() if role)


def _uncompared(measurements: list[Measurement], benchmark: Benchmark | None) -> str:
    """What was measured where nothing can be said of a difference, and why."""
    reference, *others = all_roles(measurements, benchmark)
    if not others:
        return f"{reference}: {', '.join(_alone(measurements, benchmark)) or 'measured'}."
    dense, result = dense_of(measurements), result_of(measurements)
    why = incomparable(dense, result) if dense and result else None
    found = [f"perplexity can't be compared ({why})"] if why else []
    found += ["no task was asked of both"] if any(m.tasks for m in measurements) else []
    found += ["their speed could not be told apart"] if _fastest(benchmark) else []
    return f"{reference} and {others[0]} were measured{'; ' if found else ''}{', '.join(found)}."


def _alone(measurements: list[Measurement], benchmark: Benchmark | None) -> list[str]:
    """Figures of a single model."""
    found = [
        f"perplexity {significant(p.perplexity)} on {text}" for m in measurements for text, p in by_text(m).items()
    ]
    rows = task_rows(measurements)
    found += [f"{row.task} {_shown(row, row.value)}" for row in [r for r in rows if r.mean_of] or rows]
    speed = next((row for row in speed_rows(benchmark) if row.case == main_case(benchmark)), None)
    return found + ([f"{significant(speed.tokens_per_second)} tokens/s at {speed.case.words}"] if speed else [])


def _tasks(measurements: list[Measurement]) -> str:
    row = _main_task(measurements)
    if row is None or row.difference is None:
        return ""
    before = row.value - row.difference.value
    return f"{row.task} {_shown(row, before)} → {_shown(row, row.value)}"


def _main_task(measurements: list[Measurement]) -> TaskRow | None:
    """Of the model that comes out: the first mean over tasks, else the first task."""
    result = result_of(measurements)
    rows = [r for r in task_rows(measurements) if result and r.role == result.role and r.difference]
    return next((r for r in rows if r.mean_of), rows[0] if rows else None)


def _task_figures(measurements: list[Measurement]) -> list[Figure]:
    row = _main_task(measurements)
    if row is None or row.difference is None:
        return []
    before, d = row.value - row.difference.value, row.difference
    what = f"mean of {row.mean_of} tasks" if row.mean_of else row.metric
    scale, unit = (100, " points") if row.is_share else (1, "")
    note = f"{what}; {typeset(signed(with_error(scale * d.value, d.stderr and scale * d.stderr)))}{unit}"
    return [Figure(f"Tasks: {row.task}", _shown(row, before), _shown(row, row.value), note)]


def _shown(row: TaskRow, value: float) -> str:
    """Shares of right answers in per cent, other metrics (perplexities, BLEU) as they are."""
    return typeset(f"{100 * value:.1f} %") if row.is_share else significant(value)


def _fastest(benchmark: Benchmark | None) -> tuple[SpeedRow, SpeedRow] | None:
    """The reference and the last model on the main case."""
    case = main_case(benchmark)
    rows = [row for row in speed_rows(benchmark) if row.case == case]
    return (rows[0], rows[-1]) if len(rows) > 1 and rows[-1].ratio else None


def _speed(benchmark: Benchmark | None) -> str:
    pair = _fastest(benchmark)
    ratio = pair[1].ratio if pair else None
    return f"{significant(ratio.value)} times as fast" if ratio and ratio.sure else ""


def _speed_figures(benchmark: Benchmark | None) -> list[Figure]:
    pair = _fastest(benchmark)
    if pair is None or pair[1].ratio is None:
        return []
    before, after, ratio = *pair, pair[1].ratio
    unsure = "" if ratio.sure else "; within the noise"
    interval = f"{significant(ratio.low)} to {significant(ratio.high)}"
    note = f"× {significant(ratio.value)} ({interval}), {after.case.words}{unsure}"
    rates = [significant(row.tokens_per_second) for row in pair]
    found = [Figure("Tokens per second", rates[0], rates[1], note)]
    if before.peak_bytes and after.peak_bytes:
        found.append(_figure("Peak memory", before.peak_bytes, after.peak_bytes, size))
    return found


def _after_the_cut(measurements: list[Measurement], pair: tuple[Row, Row]) -> str:
    """What the cut cost, and how much of it repair and healing won back."""
    dense, cut, result = dense_of(measurements), cut_of(measurements), result_of(measurements)
    hurt = _both(dense, cut) if dense and cut else None
    share = _won_back(measurements, result)
    if not hurt or not share:
        return ""
    repaired = any(m.role == "repaired" for m in measurements)
    by = "repair" if pair[1].role == "repaired" else "repair and healing" if repaired else "healing"
    return f"; {significant(hurt[1].result.perplexity)} after the cut, {share} of the lost nats won back by {by}"


def _won_back(measurements: list[Measurement], better: Measurement | None) -> str:
    """76 %: how much of what the cut lost a repaired or healed model has again. Empty where that can't be said."""
    dense, cut = dense_of(measurements), cut_of(measurements)
    if not dense or not cut or not better or better is cut or better.role not in ("repaired", "healed"):
        return ""
    rows = _both(dense, cut), _both(dense, better)
    lost, left = (pair[1].difference.nats if pair and pair[1].difference else None for pair in rows)
    return typeset(f"{1 - left / lost:.0%}".replace("%", " %")) if lost and lost > 0 and left is not None else ""


def _repaired(evidence: Evidence) -> str:
    """repaired without training (76 % of the lost nats won back); empty if nothing was changed."""
    step = repair_of(evidence)
    if step is None or not changed(step):
        return ""
    measured = next((m for m in evidence.measurements if m.role == "repaired"), None)
    share, where = _won_back(evidence.measurements, measured), ""
    if not share:  # the ridges were chosen there, which flatters the repair
        share, where = typeset(won_back(step.loss)), " in validation"
    return "repaired without training" + (f" ({share} of the lost nats won back{where})" if share else "")


def _removed(plan: CutPlan) -> str:
    """4 of 16 blocks removed; 2 of 16 blocks, 3 attention and 1 FFN layers removed."""
    total, layers = plan.model.n_blocks, len(plan.removed_sublayers)
    found = [f"{len(plan.removed)} of {total} block{'s' if total != 1 else ''}"] * bool(plan.removed or not layers)
    found += [f"{lost} {name}" for name, lost in _sublayers(plan).items() if lost]
    text = f"{', '.join(found[:-1])} and {found[-1]}" if len(found) > 1 else found[0]
    return f"{text}{' layers' if layers > 1 else ' layer' if layers else ''} removed"


def _sublayers(plan: CutPlan) -> dict[str, int]:
    """How many go of blocks that stay."""
    parts = [unit.part for unit in plan.removed_sublayers]
    return {"attention": parts.count(ATTENTION), "FFN": parts.count(FFN)}


def _parameters(plan: CutPlan) -> str:
    before, after = plan.model.parameters, plan.parameters_after
    difference = change(before, after)
    return typeset(count(before)) + f" → {typeset(count(after))} parameters ({typeset(difference)})"


def _quality(measurements: list[Measurement]) -> str:
    pair = _pair(measurements)
    if not pair:
        return ""
    before, after = (significant(row.result.perplexity) for row in pair)
    return f"perplexity {before} → {after} on {pair[1].text}{_seen(pair[1].result)}"


def _seen(result: Perplexity) -> str:
    return " (which it was healed on)" if result.healed_on else ""


def _pair(measurements: list[Measurement]) -> tuple[Row, Row] | None:
    """The dense model and the one that comes out, on the first text that both have read."""
    dense, result = dense_of(measurements), result_of(measurements)
    return _both(dense, result) if dense and result else None


def _both(dense: Measurement, other: Measurement) -> tuple[Row, Row] | None:
    rows = comparison([dense, other])
    pairs = (
        (a, b)
        for b in rows
        if b.difference and b.difference.paired
        for a in rows
        if a.role == dense.role and a.text == b.text
    )
    return next(pairs, None)


def _figure(name: str, before: float, after: float, shown) -> Figure:
    return Figure(name, typeset(shown(before)), typeset(shown(after)), typeset(change(before, after)))
