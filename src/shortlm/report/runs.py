"""The table of a run criterion (`angular`) as a heat map: every run of blocks by its length and its start."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path as Outline

from shortlm.report.axes import placeable
from shortlm.report.numbers import significant
from shortlm.report.svg import COLOURS, new_figure, styled, tick_step, to_svg

SHADES = 24  # steps of colour; more can't be told apart


def runs_chart(chart: str, name: str, table: list[list[float]], removed: list[int]) -> str:
    """Row n - 1, column l: the run of n blocks that starts at l. Stronger colour: closer, so easier to leave out."""
    table = [[placeable(value) for value in row] for row in table]
    low, high = _range(table)
    best = [min(range(len(row)), key=row.__getitem__) for row in table]
    with styled():
        figure = new_figure(330)
        axes = figure.add_subplot()
        for shade, outline in _cells(table, low, high).items():
            axes.add_patch(PathPatch(outline, facecolor=COLOURS["heat"], edgecolor="none", alpha=_alpha(shade)))
        lengths = range(1, len(table) + 1)
        size = max(2.0, 5 - len(table) / 24)
        axes.plot(
            best,
            lengths,
            "o",
            markersize=size,
            markeredgewidth=size / 6,
            color=COLOURS["ink"],
            markeredgecolor=COLOURS["paper"],
        )
        _chosen_run(axes, removed)
        _run_axes(axes, len(table))
        _shade_bar(figure.add_axes((0.62, 0.83, 0.33, 0.035)), low, high)
        return to_svg(figure, chart, f"{name} of all runs of blocks: {_best_runs(table, best)}")


def _range(table: list[list[float]]) -> tuple[float, float]:
    values = [value for row in table for value in row]
    return min(values), max(values)


def _alpha(shade: int) -> float:
    """0: the smallest distance, the strongest colour."""
    return round(1 - 0.94 * shade / (SHADES - 1), 3)


def _cells(table: list[list[float]], low: float, high: float) -> dict[int, Outline]:
    """All cells of one shade as one outline: large models have thousands of cells."""
    corners: dict[int, list[tuple[float, float]]] = {}
    for n, row in enumerate(table, start=1):
        for start, value in enumerate(row):
            shade = round((value - low) / ((high - low) or 1) * (SHADES - 1))
            a, b, c, d = start - 0.47, start + 0.47, n - 0.47, n + 0.47
            corners.setdefault(shade, []).extend([(a, c), (b, c), (b, d), (a, d), (a, c)])
    codes = [Outline.MOVETO, Outline.LINETO, Outline.LINETO, Outline.LINETO, Outline.CLOSEPOLY]
    return {shade: Outline(xy, codes * (len(xy) // 5)) for shade, xy in sorted(corners.items())}


def _chosen_run(axes: Axes, removed: list[int]) -> None:
    """Outline the cell of the removed blocks if they are one run."""
    if removed and max(removed) - min(removed) + 1 == len(removed):
        corner = (min(removed) - 0.5, len(removed) - 0.5)
        axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=COLOURS["gone"], linewidth=2.4, zorder=5))


def _run_axes(axes: Axes, n_blocks: int) -> None:
    axes.set(xlim=(-0.6, n_blocks - 0.4), ylim=(0.4, n_blocks + 0.6))
    axes.set_xlabel("first block of the run")
    axes.set_ylabel("length of the run (blocks)")
    step = tick_step(n_blocks)
    axes.set_xticks(range(0, n_blocks, step))
    axes.set_yticks([n for n in range(1, n_blocks + 1) if n == 1 or n % step == 0])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _shade_bar(axes: Axes, low: float, high: float) -> None:
    for shade in range(1, SHADES, 3):
        axes.add_patch(Rectangle((shade - 1, 0), 2.8, 1, facecolor=COLOURS["heat"], linewidth=0, alpha=_alpha(shade)))
    axes.set(xlim=(0, SHADES), ylim=(0, 1), yticks=[])
    axes.set_title("angle / pi", fontsize=10.5, color=COLOURS["soft"], loc="left", pad=4)
    axes.set_xticks([0, SHADES], [significant(low, 2), significant(high, 2)])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _best_runs(table: list[list[float]], best: list[int]) -> str:
    runs = [f"{n} from block {start} ({significant(table[n - 1][start])})" for n, start in enumerate(best, start=1)]
    return "closest run of " + ", ".join(runs[: len(runs) // 2 or 1])
