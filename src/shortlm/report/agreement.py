"""Whether the criteria order the units alike: Kendall's tau of every two of them, as a heat map with its numbers."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from shortlm.artifacts import BlockScores
from shortlm.report.axes import short
from shortlm.report.svg import COLOURS, new_figure, styled, to_svg
from shortlm.statistics import kendall_tau

Matrix = list[list[float | None]]
MOST = 12  # criteria whose numbers fit into a chart


def comparable(scores: BlockScores | None) -> list[str]:
    """The criteria that have scores of all units on the same text: those of a race are on fewer sequences."""
    criteria = scores.criteria if scores else {}
    return [spec for spec, values in criteria.items() if not (values.race and values.race.early)]


def tau_matrix(scores: BlockScores, specs: list[str]) -> Matrix:
    """Of these criteria; None where one of the two gives all units the same score."""
    rows = [scores.criteria[spec].scores for spec in specs]
    return [[kendall_tau(a, b) for b in rows] for a in rows]


def agreement_chart(chart: str, specs: list[str], matrix: Matrix) -> str:
    """Stronger colour: closer to the same order. Orders that are opposed have the colour of what is removed."""
    count = len(specs)
    with styled():
        figure = new_figure(110 + 34 * count)
        axes = figure.add_subplot()
        for i, row in enumerate(matrix):
            for j, tau in enumerate(row):
                if i != j:
                    _cell(axes, i, j, tau, count)
        names = [short(spec, 18) for spec in specs]
        axes.set(xlim=(-0.5, count - 0.5), ylim=(count - 0.5, -0.5))
        axes.set_xticks(range(count), names, rotation=35, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(count), names)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        return to_svg(figure, chart, f"Kendall's tau of every two criteria. {_pairs(specs, matrix)}")


def _cell(axes: Axes, i: int, j: int, tau: float | None, count: int) -> None:
    strength = 0.0 if tau is None else 0.06 + 0.84 * abs(tau)
    colour = COLOURS["gone" if tau is not None and tau < 0 else "heat"]
    axes.add_patch(Rectangle((j - 0.47, i - 0.46), 0.94, 0.92, facecolor=colour, linewidth=0, alpha=round(strength, 3)))
    words = "–" if tau is None else f"{tau:.2f}".replace("-", "−")
    words = words if count < 9 else words.replace("0.", ".")  # narrow cells
    ink = COLOURS["paper" if strength > 0.55 else "ink"]
    axes.text(j, i, words, ha="center", va="center_baseline", color=ink, fontsize=10.5 if count < 9 else 8.5)


def _pairs(specs: list[str], matrix: Matrix) -> str:
    words = [
        f"{specs[i]} and {specs[j]}: {'none' if tau is None else f'{tau:.2f}'}"
        for i, row in enumerate(matrix)
        for j, tau in enumerate(row[:i])
    ]
    return "; ".join(words)
