"""A search as lines: the loss by how much is left out, by what it took to find, and step by step on both texts.

A line per way of choosing; the one that chose has the colour of what is removed. Losses are those above the whole
model's, in nats per token; whiskers are the standard errors of that difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice

import numpy
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.markers import CARETUP
from matplotlib.ticker import FuncFormatter, MaxNLocator

from shortlm.artifacts import ModelFacts
from shortlm.report.axes import decades, placeable, short
from shortlm.report.numbers import significant, tick, with_error
from shortlm.report.search import Rise, Step, Way, chosen_step
from shortlm.report.svg import COLOURS, new_figure, styled, to_svg

Points = Sequence[tuple[float, Rise]]

OTHERS = ("kept", "teal", "violet", "gold", "soft", "rose")  # colours of the ways that did not choose
MARKERS = ("s", "^", "D", "v", "P", "X", "d")  # one more than colours: each pair comes once in 42
TALLEST = 3  # times the chosen set's loss; what is above leaves the chart
NAME = 30  # letters of a way's name in a legend


def size_chart(chart: str, found: list[Way], model: ModelFacts, y_label: str) -> str:
    """Loss against the share of the parameters that is left out; the numbers of whole blocks stand above."""
    lines: list[tuple[Way, Points]] = [
        (way, [(100 * (step.share or 0), step.rise) for step in way.by_size()]) for way in found
    ]
    with styled():
        figure = new_figure(260 + _legend_height(found))
        axes = figure.add_subplot()
        top = _ceiling(found, [rise for _, points in lines for _, rise in points])
        _lines(axes, lines, top, hollow=not all(way.unheld for way in found))
        chosen = chosen_step(found)
        if chosen is not None and chosen.share is not None:
            _ring(axes, 100 * chosen.share, chosen.rise)
        axes.set_xlim(left=0)
        axes.set_xlabel("share of the parameters left out, %")
        _losses(axes, y_label, top)
        _whole_model(axes)
        _count_blocks(axes, model)
        _legend(figure, found, chosen)
        return to_svg(figure, chart, f"Loss by how much is left out. {_said(found)}")


def cost_chart(chart: str, found: list[Way], y_label: str) -> str:
    """Loss on the text of the search against block forwards: every set about as large as the last one of its way."""
    lines: list[tuple[Way, Points]] = [
        (way, [(max(1.0, step.found.block_forwards), step.seen) for step in way.final_size()]) for way in found
    ]
    with styled():
        figure = new_figure(260 + _legend_height(found))
        axes = figure.add_subplot()
        axes.set_xscale("log")
        top = _ceiling(found, [rise for _, points in lines for _, rise in points])
        _lines(axes, lines, top, errors=False)
        chosen = chosen_step(found)
        if chosen is not None:
            _ring(axes, max(1, chosen.found.block_forwards), chosen.seen)
        low, high = axes.dataLim.intervalx
        axes.set_xlim(low / 1.8, high * 1.8)
        axes.set_xlabel("block forwards (log)")
        decades(axes.xaxis)
        axes.xaxis.set_major_formatter(lambda value, _: tick(value))
        _losses(axes, y_label, top)
        _legend(figure, found, chosen)
        return to_svg(figure, chart, f"Loss by block forwards. {_said(found)}")


def path_chart(chart: str, steps: list[Step], y_label: str) -> str:
    """Every step of one way on the text of the search and on held-out text: a gap that grows is overfitting."""
    held_out = [(i, step.held_out) for i, step in enumerate(steps, start=1) if step.held_out]
    kinds: list[tuple[str, str, str, Points]] = [
        ("text of the search", "soft", "o", [(i, step.seen) for i, step in enumerate(steps, start=1)])
    ]
    kinds += [("held-out text", "gone", "s", held_out)] if held_out else []
    with styled():
        figure = new_figure(250)
        axes = figure.add_subplot()
        for name, colour, marker, points in kinds:
            _line(axes, points, COLOURS[colour], marker, 1.8, label=name)
        axes.set_xlabel("step")
        axes.set_xlim(0.5, len(steps) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
        _losses(axes, y_label, None)
        _whole_model(axes)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2, fontsize=10)
        ends = "; ".join(f"{name}: {_value(points[0][1])} to {_value(points[-1][1])}" for name, _, _, points in kinds)
        return to_svg(figure, chart, f"Loss step by step. {ends}")


def _looks(found: list[Way]) -> list[tuple[str, str]]:
    """Colour and marker of every way."""
    others = islice(zip(cycle(OTHERS), cycle(MARKERS), strict=False), len(found))
    return [
        (COLOURS["gone"], "o") if way.chose else (COLOURS[name], mark)
        for way, (name, mark) in zip(found, others, strict=True)
    ]


def _lines(
    axes: Axes, lines: list[tuple[Way, Points]], top: float | None, errors: bool = True, hollow: bool = False
) -> None:
    """`hollow`: ways without held-out losses are to be told apart."""
    for (way, points), (colour, marker) in zip(lines, _looks([way for way, _ in lines]), strict=True):
        line = _line(axes, points, colour, marker, 2.2 if way.chose else 1.3, errors)
        if hollow and way.unheld:
            line.set(markerfacecolor=COLOURS["paper"], linestyle=":")
    if top is not None:
        _above(axes, lines, top)


def _above(axes: Axes, lines: list[tuple[Way, Points]], top: float) -> None:
    """A caret and the loss of each way that is above the chart with all its sets, one below the other."""
    looks = _looks([way for way, _ in lines])
    gone = [(points[-1], look) for (_, points), look in zip(lines, looks, strict=True) if _least(points) > top]
    for row, ((x, rise), (colour, _)) in enumerate(gone):
        y = top * (0.97 - 0.08 * (row % 8))
        axes.plot(x, y, marker=CARETUP, color=colour, markersize=8)
        words, side = significant(rise.nats, 2), -1 if x > sum(axes.get_xlim()) / 2 else 1
        axes.annotate(words, (x, y), (8 * side, -1), textcoords="offset points", va="top", fontsize=9.5,
                      ha="left" if side > 0 else "right")  # fmt: skip


def _least(points: Points) -> float:
    return min((rise.nats for _, rise in points), default=0.0)


def _line(
    axes: Axes, points: Points, colour: str, marker: str, width: float, errors: bool = True, label: str = ""
) -> Line2D:
    xs, ys = [x for x, _ in points], [placeable(rise.nats) for _, rise in points]
    (line,) = axes.plot(xs, ys, color=colour, linewidth=width, marker=marker, markersize=4.5, label=label)
    for x, y, (_, rise) in zip(xs, ys, points, strict=True):
        if errors and rise.stderr:
            error = placeable(rise.stderr)
            axes.plot([x, x], [y - error, y + error], color=colour, linewidth=1.1, solid_capstyle="butt")
    return line


def _ring(axes: Axes, x: float, rise: Rise) -> None:
    axes.plot(x, placeable(rise.nats), marker="o", markersize=12, markerfacecolor="none",
              markeredgecolor=COLOURS["ink"], markeredgewidth=1.3, zorder=5)  # fmt: skip


def _ceiling(found: list[Way], rises: list[Rise]) -> float | None:
    """Where the chart ends if some sets are so bad that the differences between the good ones would vanish."""
    chosen = chosen_step(found)
    top = TALLEST * max(0.0, chosen.seen.nats, chosen.rise.nats) if chosen else 0.0
    return placeable(top) if 0 < top < max((rise.nats for rise in rises), default=0.0) else None


def _losses(axes: Axes, label: str, top: float | None) -> None:
    """The axis of added losses."""
    low, high = axes.dataLim.intervaly
    high = high if top is None else top
    room = 0.08 * ((high - low) or abs(high) or 1.0)
    axes.set_ylim(low - room, high + (room if top is None else 0.0))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))
    axes.set_ylabel(f"added {short(label)}, nats per token")
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y")


def _whole_model(axes: Axes) -> None:
    """A dashed line at 0, which the axis has to reach."""
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, -0.06 * abs(high)), max(high, 0.06 * abs(low)))
    axes.axhline(0, color=COLOURS["ink"], linewidth=0.9, linestyle=(0, (4, 2)))


def _count_blocks(axes: Axes, model: ModelFacts) -> None:
    """Ticks at whole numbers of blocks above the chart, if all blocks are alike."""
    share = 100 * model.block_parameters[0] / model.parameters
    if len(set(model.block_parameters)) > 1 or not share:
        return
    low, high = axes.get_xlim()
    to_blocks, to_share = (lambda x: numpy.asarray(x) / share), (lambda n: numpy.asarray(n) * share)
    above = axes.secondary_xaxis("top", functions=(to_blocks, to_share))
    above.set_xlabel("whole blocks")
    above.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    above.tick_params(length=0)
    above.spines[:].set_visible(False)
    axes.set_xlim(low, high)


def _legend_height(found: list[Way]) -> float:
    return 17 * (len(found) + 2) // 2


def _legend(figure: Figure, found: list[Way], chosen: Step | None) -> None:
    lines = [
        Line2D([], [], color=colour, marker=marker, markersize=4.5, linewidth=2.2 if way.chose else 1.3)
        for way, (colour, marker) in zip(found, _looks(found), strict=True)
    ]
    names = [short(way.name, NAME) for way in found]
    if chosen is not None:
        ring = Line2D([], [], marker="o", markersize=10, markerfacecolor="none", linewidth=0)
        ring.set_markeredgecolor(COLOURS["ink"])
        lines, names = [*lines, ring], [*names, "the chosen set"]
    figure.legend(lines, names, loc="outside upper left", ncols=2, fontsize=9.5, columnspacing=1.2)


def _value(rise: Rise) -> str:
    return with_error(rise.nats, rise.stderr)


def _said(found: list[Way]) -> str:
    share = [("" if way.last.share is None else f" at {significant(100 * way.last.share)} %") for way in found]
    return "; ".join(f"{way.name}: {_value(way.last.rise)}{at}" for way, at in zip(found, share, strict=True))
