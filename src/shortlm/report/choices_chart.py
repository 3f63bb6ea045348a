"""What each way of choosing leaves out: a row per way, a column per block; attention and FFN may stand apart."""

from __future__ import annotations

from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from shortlm.artifacts import CutPlan
from shortlm.report.axes import short
from shortlm.report.search import ways
from shortlm.report.svg import COLOURS, new_figure, styled, tick_step, to_svg
from shortlm.report.units import is_fine, sublayers, units_text
from shortlm.units import ATTENTION, BLOCK, FFN, Unit

ROW, GAP, TITLE = 17.0, 9.0, 17.0  # heights, in CSS pixels
ALONE = {ATTENTION: "gold", FFN: "violet"}  # colours of a sublayer that goes while the other one stays


class Choice(NamedTuple):
    """A set of units and what it is called."""

    name: str
    units: list[Unit]

    @property
    def fine(self) -> bool:
        """Whether it leaves out attention or FFN alone."""
        return is_fine(self.units)


def choices(plan: CutPlan) -> list[Choice]:
    """The plan, and the last set of every way that came to another one."""
    found = ways(plan)
    own = next((way.name for way in found if way.chose), "")
    rows = [Choice(f"the plan: {own}" if own else "the plan", plan.units)]
    return rows + [Choice(way.name, way.last.found.units) for way in found if not way.chose]


def alone(rows: list[Choice]) -> list[str]:
    """Which sublayers some row leaves out while the other one of the block stays."""
    gone = [sublayers(row.units) for row in rows]
    return [
        part
        for part, other in ((ATTENTION, FFN), (FFN, ATTENTION))
        if any(unit.part == part and Unit(unit.block, other) not in units for units in gone for unit in units)
    ]


def choices_chart(chart: str, rows: list[Choice], n_blocks: int, protected: list[int]) -> str:
    """Rows of cells from the plan downwards."""
    heights = [TITLE + GAP + ROW * (1 + 0.7 * row.fine) for row in rows]
    with styled():
        figure = new_figure(sum(heights) + 44)
        axes = figure.add_subplot()
        top = 0.0
        for row, height in zip(rows, heights, strict=True):
            axes.text(-0.5, top + TITLE - 5, short(row.name, 60), fontsize=10.5)
            _row(axes, row, n_blocks, protected, top + TITLE, height - TITLE - GAP)
            top += height
        axes.set(xlim=(-0.5, n_blocks - 0.5), ylim=(top - GAP + 3, 0), yticks=[])
        axes.set_xticks(range(0, n_blocks, tick_step(n_blocks)))
        axes.set_xlabel("block")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        words = "; ".join(f"{row.name}: {units_text(row.units)}" for row in rows)
        return to_svg(figure, chart, f"What each way leaves out. {words}")


def _row(axes: Axes, row: Choice, n_blocks: int, protected: list[int], top: float, height: float) -> None:
    gone = sublayers(row.units)
    lanes = (ATTENTION, FFN) if row.fine else (BLOCK,)
    each = height / len(lanes)
    for lane, part in enumerate(lanes):
        if part != BLOCK:
            words = "attention" if part == ATTENTION else "FFN"
            axes.text(n_blocks - 0.35, top + (lane + 0.5) * each, words, fontsize=9, va="center", color=COLOURS["soft"])
        for i in range(n_blocks):
            _cell(axes, i, top + lane * each, each, _colour(gone, i, part), i in protected)


def _colour(gone: frozenset[Unit], i: int, part: str) -> str:
    """Of a cell: what stays, a whole block that goes, or a sublayer alone."""
    whole = sublayers([Unit(i)]) <= gone
    if whole or part == BLOCK:
        return "gone" if whole else "kept"
    return ALONE[part] if Unit(i, part) in gone else "kept"


def _cell(axes: Axes, i: int, top: float, height: float, colour: str, protected: bool) -> None:
    cell = Rectangle((i - 0.43, top + 1), 0.86, height - 2, facecolor=COLOURS[colour], linewidth=0)
    if colour == "kept":
        cell.set(alpha=0.38)
        if protected:
            cell.set(facecolor="none", edgecolor=COLOURS["kept"], linewidth=1.0, alpha=1.0)
    axes.add_patch(cell)
