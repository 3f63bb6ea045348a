"""The scores of every block or sublayer as bars, one chart per criterion; the table of runs has a file of its own."""

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
from shortlm.report.units import unit_name, units_text
from shortlm.units import BLOCK, FFN, PARTS, Unit

EARLY: Any = {"alpha": 0.4, "hatch": "////"}  # how bars look whose scores can't be compared with the others'


def scores_chart(
    chart: str,
    name: str,
    criterion: CriterionScores,
    removed: list[int],
    protected: list[int],
    dense: float | None,
    units: list[Unit] | None = None,
) -> str:
    """Bars with standard errors, one per unit (block, if none are given); attention and FFN have a panel each.

    `removed` and `protected` are places among the units. `dense` is the whole model's perplexity: bars of `ppl`
    stand on it. Blocks that left a race early are pale and hatched: their scores are from fewer sequences.
    """
    units = units or [Unit(i) for i in range(len(criterion.scores))]
    original, (criterion, dense, power) = criterion, within_reach(criterion, dense)
    notes = {_gid(unit): _note(original, i, unit, removed, protected) for i, unit in enumerate(units)}
    race = criterion.race if criterion.race and criterion.race.early else None
    with styled():
        parts = [part for part in PARTS if any(unit.part == part for unit in units)]
        figure = new_figure((215 if len(parts) == 1 else 60 + 115 * len(parts)) + (35 if race else 0))
        panels = figure.subplots(len(parts), sharex=True, sharey=True, squeeze=False)[:, 0]
        for part, axes in zip(parts, panels, strict=True):
            _panel(axes, criterion, units, part, removed, protected, dense)
        unit = f"{criterion.unit} × 1e{power}" if power else criterion.unit
        _names(
            figure, list(panels), parts, unit.replace(" - ", " − ") + (" (log)" if _on_log(criterion, dense) else "")
        )
        if race:
            _legend_of_early(figure, race.longest)
        return to_svg(figure, chart, f"{name}: {_summary(original, units, removed)}", notes)


def _panel(
    axes: Axes, criterion: CriterionScores, units: list[Unit], part: str, removed: list[int], protected: list[int],
    dense: float | None,
) -> None:  # fmt: skip
    """The bars of one part; limits are those of all."""
    values, errors = criterion.scores, _errors(criterion)
    floor, top, log = _floor(criterion, dense), ceiling(criterion, dense), _on_log(criterion, dense)
    base = floor if floor or not log else min(values) / 2
    left_early = criterion.race.early if criterion.race else []
    _axes(axes, 1 + max(unit.block for unit in units), log)
    rows = [(i, unit) for i, unit in enumerate(units) if unit.part == part]
    for i, unit in rows:
        tall = top is not None and values[i] > top
        bar = _bar(axes, unit, top if tall else values[i], base, i in removed, i in protected)
        if i in left_early:
            bar.set(edgecolor=COLOURS["gone" if i in removed else "kept"], **EARLY)
        if errors[i] > 0 and not tall:
            _whisker(axes, unit.block, values[i], errors[i], log)
    if top is not None:
        _cut_marks(axes, [(unit.block, values[i]) for i, unit in rows], top, base)
    if floor:
        axes.axhline(floor, color=COLOURS["ink"], linewidth=0.9, linestyle=(0, (4, 2)))
    pairs = zip(values, errors, strict=True)
    _room(axes, [(v, e) if top is None or v <= top else (top, 0.06 * (top - base)) for v, e in pairs], base, log)


def _names(figure: Figure, panels: list[Axes], parts: list[str], unit: str) -> None:
    """What the axes are, once for all panels."""
    panels[-1].set_xlabel("block")
    if len(panels) == 1:
        panels[0].set_ylabel(unit)
        return
    figure.supylabel(unit, fontsize=11, color=COLOURS["soft"])
    for axes, part in zip(panels, parts, strict=True):
        axes.set_title("FFN" if part == FFN else part, loc="left", fontsize=10.5, color=COLOURS["soft"])


def _gid(unit: Unit) -> str:
    return f"block-{unit.block}" if unit.part == BLOCK else f"block-{unit.block}-{unit.part}"


def _errors(criterion: CriterionScores) -> list[float]:
    return criterion.paired_stderr or criterion.stderr or [0.0] * len(criterion.scores)


def _on_log(criterion: CriterionScores, dense: float | None) -> bool:
    return ceiling(criterion, dense) is None and is_log(criterion.scores)


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


def _axes(axes: Axes, n_blocks: int, log: bool) -> None:
    axes.set_xlim(-0.7, n_blocks - 0.3)
    axes.set_xticks(range(0, n_blocks, tick_step(n_blocks)))
    axes.tick_params(axis="x", length=0)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y")
    if log:
        axes.set_yscale("log")


def _bar(axes: Axes, unit: Unit, value: float, base: float, removed: bool, protected: bool) -> Rectangle:
    colour = COLOURS["gone" if removed else "kept"]
    (bar,) = axes.bar(unit.block, value - base, bottom=base, width=0.74, color=colour, linewidth=_line(axes))
    bar.set_gid(_gid(unit))
    if protected and not removed:
        bar.set(facecolor=COLOURS["paper"], edgecolor=colour, width=0.68, x=unit.block - 0.34)
    return bar


def _legend_of_early(figure: Figure, most: int) -> None:
    patch = Patch(facecolor=COLOURS["kept"], edgecolor=COLOURS["kept"], linewidth=0, **EARLY)
    words = f"left the race early: scored on fewer than {most} windows,\nnot comparable with the others"
    figure.legend([patch], [words], loc="outside upper left", fontsize=9.5)


def _cut_marks(axes: Axes, bars: list[tuple[int, float]], top: float, base: float) -> None:
    """A gap near the upper end of every bar that is cut off, and its value above."""
    tall = [(block, value) for block, value in bars if value > top]
    span = top - base
    for block, _ in tall:
        slope = [base + 0.9 * span, base + 0.94 * span]
        axes.plot([block - 0.55, block + 0.55], slope, color=COLOURS["paper"], linewidth=3.5, zorder=3)
    if len(bars) > 16:  # too narrow for a number above each
        words = ", ".join(f"block {block}: {significant(value)}" for block, value in tall[:4])
        words += " …" if len(tall) > 4 else ""
        axes.text(0, 1.01, words, transform=axes.transAxes, fontsize=9.5)
        return
    for block, value in tall:
        axes.text(block, top + 0.03 * span, significant(value), ha="center", va="bottom", fontsize=9.5)


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


def _note(criterion: CriterionScores, i: int, unit: Unit, removed: list[int], protected: list[int]) -> str:
    errors = criterion.paired_stderr or criterion.stderr
    error = errors[i] if errors else None
    state = ", removed" if i in removed else ", protected" if i in protected else ""
    seen = f", on {criterion.race.sequences[i]} windows" if criterion.race else ""
    return f"{unit_name(unit)}{state}: {with_error(criterion.scores[i], error)}{seen}"


def _summary(criterion: CriterionScores, units: list[Unit], removed: list[int]) -> str:
    race, gone = criterion.race, units_text(units[i] for i in removed)
    if race and race.early:  # scores on other windows have no order
        found = f"a race found {blocks(race.selected)}; left it early, on fewer windows: {blocks(race.early)}"
        return f"{found}; {criterion.unit}; removed blocks: {gone}"
    order = criterion.order()
    low, high = (f"{significant(criterion.scores[i])} at {unit_name(units[i])}" for i in (order[0], order[-1]))
    return f"lowest {low}, highest {high}, {criterion.unit}; removed blocks: {gone}"
