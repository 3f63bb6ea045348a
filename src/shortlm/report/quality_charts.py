"""Quality before and after as charts: perplexity, parameters, tasks, and what quality costs in size and time.

Every function returns inline SVG (see svg.py). `palette` gives each model its colour.
"""

from __future__ import annotations

import statistics

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from shortlm.artifacts import Measurement
from shortlm.report.axes import decades, lanes, placeable, placeable_on_log, short
from shortlm.report.labels import LINE, label_dots
from shortlm.report.numbers import count, significant, tick, with_error
from shortlm.report.quality import Row
from shortlm.report.svg import COLOURS, new_figure, styled, to_svg
from shortlm.report.tasks import TaskRow
from shortlm.report.tradeoff import Point

Palette = dict[str, str]
FAR = 4  # times as large: of qualities on a logarithmic axis


def perplexity_chart(chart: str, rows: list[Row], palette: Palette) -> str:
    """A lane per text and model with a dot (the reference: grey) and its standard error; texts stand apart."""
    texts = list(dict.fromkeys(row.text for row in rows))
    heights = [-(i + 0.8 * texts.index(row.text)) for i, row in enumerate(rows)]
    with styled():
        figure = new_figure(64 + 21 * (heights[0] - heights[-1] + 1))
        axes = figure.add_subplot()
        axes.set_xscale("log")
        for y, row in zip(heights, rows, strict=True):
            _lane(axes, y, row, palette.get(row.role, COLOURS["kept"]))
        middles = [statistics.mean(y for y, r in zip(heights, rows, strict=True) if r.text == text) for text in texts]
        axes.set_yticks(middles, [short(text.rsplit("/", 1)[-1]) for text in texts])
        axes.set_ylim(heights[-1] - 0.7, heights[0] + 0.7)
        _perplexity_axis(axes)
        label = "; ".join(f"{r.text}, {r.role}: {with_error(r.result.perplexity, r.stderr)}" for r in rows)
        return to_svg(figure, chart, f"Perplexity. {label}")


def parameters_chart(chart: str, measurements: list[Measurement], palette: Palette) -> str:
    """A bar per model: its blocks, and what is outside them (embeddings, head, final norm)."""
    ordered = measurements[::-1]  # the last one is drawn on top
    with styled():
        figure = new_figure(74 + 34 * len(measurements))
        axes = figure.add_subplot()
        for y, measured in enumerate(ordered):
            inside, total = sum(measured.model.block_parameters), measured.model.parameters
            colour = palette.get(measured.role, COLOURS["kept"])
            axes.barh(y, inside, height=0.56, color=colour)
            axes.barh(y, max(total - inside, 0), height=0.56, left=inside, color=colour, alpha=0.4)
            axes.annotate(count(total), (total, y), (5, 0), textcoords="offset points", va="center", fontsize=10.5)
        axes.set_yticks(range(len(ordered)), [short(m.role) for m in ordered])
        axes.set_xlim(0, 1.2 * max(m.model.parameters for m in ordered) or 1.0)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(lambda value, _: tick(value))
        axes.set_xlabel("parameters (solid: blocks; pale: all else)")
        lanes(axes)
        label = "; ".join(f"{m.role}: {count(m.model.parameters)}" for m in measurements)
        return to_svg(figure, chart, f"Parameters. {label}")


def tasks_chart(chart: str, rows: list[TaskRow], palette: Palette) -> str:
    """A bar per task and model with its standard error; the means stand last."""
    tasks = list(dict.fromkeys((row.task, row.metric) for row in rows))
    heights = [-(i + 0.9 * tasks.index((row.task, row.metric))) for i, row in enumerate(rows)]
    with styled():
        figure = new_figure(70 + 15 * (heights[0] - heights[-1] + 1))
        axes = figure.add_subplot()
        for y, row in zip(heights, rows, strict=True):
            colour = palette.get(row.role, COLOURS["kept"])
            value, error = placeable(row.value), placeable(row.stderr or 0.0)
            axes.barh(y, value, height=0.8, color=colour, label=short(row.role))
            if error:
                ends = [value - error, value + error]
                axes.plot(ends, [y, y], color=COLOURS["ink"], linewidth=1.2, solid_capstyle="butt")
            if row.chance is not None:
                axes.plot(
                    [row.chance] * 2, [y - 0.45, y + 0.45], color=COLOURS["ink"], linewidth=1.2, linestyle=(0, (1, 1))
                )
        middles = [
            statistics.mean(y for y, r in zip(heights, rows, strict=True) if (r.task, r.metric) == t) for t in tasks
        ]
        axes.set_yticks(middles, [f"{short(task)}\n{metric}" for task, metric in tasks], fontsize=9.5)
        axes.set_ylim(heights[-1] - 0.9, heights[0] + 0.9)
        top = max(placeable(row.value) + placeable(row.stderr or 0.0) for row in rows)
        axes.set_xlim(min(0.0, *(placeable(row.value) for row in rows)), 1.0 if 0.4 < top <= 1 else 1.08 * top or 1.0)
        lanes(axes)
        _legend_above(figure, axes)
        label = "; ".join(f"{r.task}, {r.role}: {with_error(r.value, r.stderr)}" for r in rows)
        return to_svg(figure, chart, f"Tasks. {label}")


def tradeoff_chart(
    chart: str, points: list[Point], x_label: str, y_label: str, palette: Palette, by_factors: bool = False
) -> str:
    """A dot per model: what it costs to the right, how good it is upwards; whiskers are standard errors. Qualities that
    differ `by_factors` get a logarithmic axis where they are far apart.
    """
    with styled():
        figure = tradeoff_figure(points, x_label, y_label, palette, by_factors)
        label = "; ".join(f"{p.role}: {significant(p.x)}, {with_error(p.y, p.stderr)}" for p in points)
        return to_svg(figure, chart, f"{y_label} against {x_label}. {label}")


def tradeoff_figure(
    points: list[Point], x_label: str, y_label: str, palette: Palette, by_factors: bool = False
) -> Figure:
    """The same before it is written. Names never cover one another, whatever is equal (a cut and a healed model)."""
    points = [Point(p.role, placeable(p.x), placeable(p.y), placeable(p.stderr or 0.0)) for p in points]
    figure = new_figure(max(250, 90 + 2 * LINE * len(points)))
    axes = figure.add_subplot()
    for point in points:
        colour = palette.get(point.role, COLOURS["kept"])
        if point.stderr:
            ends = [point.y - point.stderr, point.y + point.stderr]
            axes.plot([point.x, point.x], ends, color=colour, linewidth=1.6, solid_capstyle="butt")
        axes.plot(point.x, point.y, marker="o", markersize=8, color=colour)
    _room(axes, points)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    if by_factors and _far_apart(points):
        axes.set_yscale("log")
        axes.set_ylim(*_room_for_factors(points))
        decades(axes.yaxis)
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(lambda value, _: tick(value) if abs(value) >= 1e4 else f"{value:g}")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid()
    label_dots(figure, axes, [(p.x, p.y, p.stderr or 0.0) for p in points], [short(p.role) for p in points])
    return figure


def _legend_above(figure: Figure, axes: Axes) -> None:
    handles, names = axes.get_legend_handles_labels()
    once = dict(zip(names, handles, strict=True))
    if len(once) > 1:
        figure.legend(list(once.values()), list(once), loc="outside upper left", ncols=min(len(once), 3), fontsize=10)


def _far_apart(points: list[Point]) -> bool:
    low = min(p.y - (p.stderr or 0.0) for p in points)
    return low > 0 and max(p.y for p in points) > FAR * low


def _room_for_factors(points: list[Point]) -> tuple[float, float]:
    """On a logarithmic axis."""
    low, high = min(p.y - (p.stderr or 0.0) for p in points), max(p.y + (p.stderr or 0.0) for p in points)
    return low * (low / high) ** 0.15, high * (high / low) ** 0.2


def _room(axes: Axes, points: list[Point]) -> None:
    """Space for the names at the right, and around a single point."""
    xs = [p.x for p in points]
    ys = [v for p in points for v in (p.y - (p.stderr or 0), p.y + (p.stderr or 0))]
    across, up = (max(xs) - min(xs)) or abs(xs[0]) or 1.0, (max(ys) - min(ys)) or abs(ys[0]) or 1.0
    axes.set_xlim(min(xs) - 0.15 * across, max(xs) + 0.35 * across)
    axes.set_ylim(min(ys) - 0.15 * up, max(ys) + 0.2 * up)


def _lane(axes: Axes, y: float, row: Row, colour: str) -> None:
    """One model: a dot, its standard error, and the value beside them."""
    value = placeable_on_log(row.result.perplexity)
    low, high = (placeable_on_log(value + sign * placeable(row.stderr or 0.0)) for sign in (-1, 1))
    axes.plot([low, high], [y, y], color=colour, linewidth=1.6, solid_capstyle="butt")
    axes.plot(value, y, marker="o", markersize=7, color=colour)
    words = f"{short(row.role)} {significant(row.result.perplexity)}"
    axes.annotate(words, (high, y), (7, 0), textcoords="offset points", va="center", fontsize=10.5)


def _perplexity_axis(axes: Axes) -> None:
    """Logarithmic, with room for the values on the right."""
    low, high = axes.dataLim.intervalx
    reach = max(high / low, 1.02)
    axes.set_xlim(low / reach**0.1, high * reach**0.5)
    decades(axes.xaxis)
    axes.set_xlabel("perplexity (log scale, lower is better)")
    lanes(axes)
