"""The scores of every block as bars, one chart for each criterion; the table of runs has a file of its own."""

from __future__ import annotations

import math
import statistics
from decimal import Decimal
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from shortlm.artifacts import CriterionScores
from shortlm.report.axes import LARGEST, decades, engineering, placeable
from shortlm.report.numbers import blocks, significant, with_error
from shortlm.report.svg import COLOURS, new_figure, styled, tick_step, to_svg

EARLY: Any = {"alpha": 0.4, "hatch": "////"}  # how bars look whose scores can't be compared with the others'


def scores_chart(
    chart: str, name: str, criterion: CriterionScores, removed: list[int], protected: list[int], dense: float | None
) -> str:
    """Bars per block with standard errors. `dense` is the whole model's perplexity: bars of `ppl` stand on it.

    Blocks that left a race early are pale and hatched: their scores are from fewer sequences.
    """
    original, (criterion, dense, power) = criterion, within_reach(criterion, dense)
    values = criterion.scores
    errors = criterion.paired_stderr or criterion.stderr or [0.0] * len(values)
    floor, top = _floor(criterion, dense), ceiling(criterion, dense)
    log = top is None and is_log(values)
    base = floor if floor or not log else min(values) / 2
    pairs = list(zip(values, errors, strict=True))
    notes = {f"block-{i}": _note(original, i, removed, protected) for i in range(len(values))}
    race, left_early = criterion.race, criterion.race.early if criterion.race else []
    with styled():
        figure = new_figure(250 if left_early else 215)
        axes = figure.add_subplot()
        _axes(axes, len(values), log, f"{criterion.unit} × 1e{power}" if power else criterion.unit)
        for i, (value, error) in enumerate(pairs):
            tall = top is not None and value > top
            bar = _bar(axes, i, top if tall else value, base, i in removed, i in protected)
            if i in left_early:
                bar.set(edgecolor=COLOURS["gone" if i in removed else "kept"], **EARLY)
            if error > 0 and not tall:
                _whisker(axes, i, value, error, log)
        if top is not None:
            _cut_marks(axes, values, top, base)
        if floor:
            axes.axhline(floor, color=COLOURS["ink"], linewidth=0.9, linestyle=(0, (4, 2)))
        if race and left_early:
            _legend_of_early(figure, race.longest)
        _room(axes, [(v, e) if top is None or v <= top else (top, 0.06 * (top - base)) for v, e in pairs], base, log)
        return to_svg(figure, chart, f"{name}: {_summary(original, removed)}", notes)


def within_reach(criterion: CriterionScores, dense: float | None) -> tuple[CriterionScores, float | None, int]:
    """The same in units of a power of ten, and that power: 0 unless the scores lie where no axis can hold them."""
    largest = max(map(abs, [*criterion.scores, _floor(criterion, dense)]))
    power = 0 if not largest or 1 / LARGEST < largest < LARGEST else int(f"{largest:e}".partition("e")[2])

    def scaled(value: float) -> float:
        return placeable(float(Decimal(value).scaleb(-power)) if power and math.isfinite(value) else value)

    changes: dict[str, Any] = {"scores": [scaled(value) for value in criterion.scores]}
    for name in ("stderr", "paired_stderr"):
        errors = getattr(criterion, name)
        changes[name] = errors and [scaled(error) for error in errors]
    return criterion.model_copy(update=changes), None if dense is None else scaled(dense), power


def is_log(values: list[float]) -> bool:
    """Positive scores that span more than two decades need a logarithmic axis."""
    return min(values) > 0 and max(values) / min(values) > 100


def ceiling(criterion: CriterionScores, dense: float | None) -> float | None:
    """Where bars of `ppl` are cut off: one block (often the first) can be so tall that the others vanish.

    None if all bars fit. What is typical includes the standard errors, so that whiskers stay whole.
    """
    floor, errors = _floor(criterion, dense), criterion.paired_stderr or criterion.stderr or [0.0]
    typical = statistics.median(criterion.scores) - floor + statistics.median(errors)
    shown = [value for value in criterion.scores if value - floor <= 10 * typical]
    if not floor or typical <= 0 or len(shown) == len(criterion.scores):
        return None
    return floor + max(1.3 * (max(shown) - floor), 2 * typical)


def _floor(criterion: CriterionScores, dense: float | None) -> float:
    """What bars stand on: the whole model's perplexity, so that they show what the block contributes; else 0."""
    return dense if dense is not None and criterion.unit == "perplexity" else 0.0


def _axes(axes: Axes, n_blocks: int, log: bool, unit: str) -> None:
    axes.set_xlim(-0.7, n_blocks - 0.3)
    axes.set_xlabel("block")
    axes.set_ylabel(unit.replace(" - ", " − ") + (" (log)" if log else ""))
    axes.set_xticks(range(0, n_blocks, tick_step(n_blocks)))
    axes.tick_params(axis="x", length=0)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y")
    if log:
        axes.set_yscale("log")


def _bar(axes: Axes, i: int, value: float, base: float, removed: bool, protected: bool) -> Rectangle:
    colour = COLOURS["gone" if removed else "kept"]
    (bar,) = axes.bar(i, value - base, bottom=base, width=0.74, color=colour, linewidth=_line(axes))
    bar.set_gid(f"block-{i}")
    if protected and not removed:
        bar.set(facecolor=COLOURS["paper"], edgecolor=colour, width=0.68, x=i - 0.34)
    return bar


def _legend_of_early(figure: Figure, most: int) -> None:
    patch = Patch(facecolor=COLOURS["kept"], edgecolor=COLOURS["kept"], linewidth=0, **EARLY)
    words = f"left the race early: scored on fewer than {most} windows,\nnot comparable with the others"
    figure.legend([patch], [words], loc="outside upper left", fontsize=9.5)


def _cut_marks(axes: Axes, values: list[float], top: float, base: float) -> None:
    """A gap near the upper end of every bar that is cut off, and its value above."""
    tall = [i for i, value in enumerate(values) if value > top]
    span = top - base
    for i in tall:
        slope = [base + 0.9 * span, base + 0.94 * span]
        axes.plot([i - 0.55, i + 0.55], slope, color=COLOURS["paper"], linewidth=3.5, zorder=3)
    if len(values) > 16:  # too narrow for a number above each
        words = ", ".join(f"block {i}: {significant(values[i])}" for i in tall[:4]) + (" …" if len(tall) > 4 else "")
        axes.text(0, 1.01, words, transform=axes.transAxes, fontsize=9.5)
        return
    for i in tall:
        axes.text(i, top + 0.03 * span, significant(values[i]), ha="center", va="bottom", fontsize=9.5)


def _line(axes: Axes) -> float:
    """Thinner where many blocks share the width."""
    return 1.2 if axes.get_xlim()[1] < 40 else 0.7


def _whisker(axes: Axes, i: int, value: float, error: float, log: bool) -> None:
    bottom = max(value - error, value / 1e3) if log else value - error
    axes.plot([i, i], [bottom, value + error], color=COLOURS["ink"], linewidth=_line(axes), solid_capstyle="butt")


def _room(axes: Axes, pairs: list[tuple[float, float]], base: float, log: bool) -> None:
    """Limits that hold bars and whiskers; round labels on either scale."""
    low, high = min([base, *(v - e for v, e in pairs)]), max([base, *(v + e for v, e in pairs)])
    if log:
        lowest = min(value for value, _ in pairs)
        axes.set_ylim(base if base < lowest else lowest * 0.8, high * 1.3)
        decades(axes.yaxis)
        return
    span = (high - low) or 1.0
    axes.set_ylim(low if low == 0 else low - 0.06 * span, high + 0.06 * span)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=all(v == round(v) for v, _ in pairs)))
    axes.yaxis.set_major_formatter(engineering(max(abs(low), abs(high))))


def _note(criterion: CriterionScores, i: int, removed: list[int], protected: list[int]) -> str:
    errors = criterion.paired_stderr or criterion.stderr
    error = errors[i] if errors else None
    state = ", removed" if i in removed else ", protected" if i in protected else ""
    seen = f", on {criterion.race.sequences[i]} windows" if criterion.race else ""
    return f"block {i}{state}: {with_error(criterion.scores[i], error)}{seen}"


def _summary(criterion: CriterionScores, removed: list[int]) -> str:
    race = criterion.race
    if race and race.early:  # scores on other windows have no order
        found = f"a race found {blocks(race.selected)}; left it early, on fewer windows: {blocks(race.early)}"
        return f"{found}; {criterion.unit}; removed blocks: {blocks(removed)}"
    order = criterion.order()
    low, high = order[0], order[-1]
    ends = f"lowest {significant(criterion.scores[low])} at block {low}, highest {significant(criterion.scores[high])}"
    return f"{ends} at block {high}, {criterion.unit}; removed blocks: {blocks(removed)}"
