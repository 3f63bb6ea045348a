"""Speed and memory as charts: latency and throughput by batch (the figure of Shortened LLaMA), peaks, a step's parts.

Every function returns inline SVG (see svg.py). `palette` gives each model its colour.
"""

from __future__ import annotations

from collections.abc import Callable

from matplotlib.ticker import MaxNLocator

from shortlm.artifacts import BenchedModel
from shortlm.report.axes import decades, lanes, legend, placeable, placeable_on_log, short
from shortlm.report.numbers import duration, significant, size
from shortlm.report.speed import CaseName, Share, SpeedRow
from shortlm.report.svg import COLOURS, new_figure, styled, to_svg

Palette = dict[str, str]


def throughput_chart(chart: str, rows: list[SpeedRow], palette: Palette) -> str:
    """A line per model through its batches: latency to the right, tokens per second upwards. All of one length."""
    with styled():
        figure = new_figure(270)
        axes = figure.add_subplot()
        axes.set_xscale("log")
        axes.set_yscale("log")
        for role in dict.fromkeys(row.role for row in rows):
            mine = [row for row in rows if row.role == role]
            xs = [placeable_on_log(row.latency) for row in mine]
            ys = [placeable_on_log(row.tokens_per_second) for row in mine]
            colour = palette.get(role, COLOURS["kept"])
            axes.plot(xs, ys, color=colour, linewidth=1.6, marker="o", markersize=5, label=short(role))
            for x, y, row in zip(xs, ys, mine, strict=True):
                axes.plot([placeable_on_log(q) for q in row.quartiles], [y, y], color=colour, linewidth=1)
                axes.annotate(str(row.case.batch), (x, y), (5, -11),
                              textcoords="offset points", fontsize=9, color=COLOURS["soft"])  # fmt: skip
        axes.margins(0.12)
        decades(axes.xaxis)
        decades(axes.yaxis)
        axes.set_xlabel("latency, seconds (log; small numbers: batch)")
        axes.set_ylabel("tokens per second (log)")
        axes.grid()
        legend(axes)
        label = "; ".join(
            f"{r.role}, {r.case.words}: {duration(r.latency)}, {significant(r.tokens_per_second)} tokens/s"
            for r in rows
        )
        return to_svg(figure, chart, f"Throughput against latency. {label}")


def memory_chart(chart: str, rows: list[SpeedRow], models: list[BenchedModel], palette: Palette) -> str:
    """Peak memory by case: the weights (solid), and what is alive beyond them (pale)."""
    weights = {m.role: m.weight_bytes for m in models}
    cases = list(dict.fromkeys(row.case for row in rows))
    heights = [-(i + 0.9 * cases.index(row.case)) for i, row in enumerate(rows)]
    with styled():
        figure = new_figure(70 + 16 * (heights[0] - heights[-1] + 1))
        axes = figure.add_subplot()
        for y, row in zip(heights, rows, strict=True):
            colour, peak = palette.get(row.role, COLOURS["kept"]), row.peak_bytes or 0
            axes.barh(y, weights[row.role], height=0.8, color=colour, label=short(row.role))
            axes.barh(y, peak - weights[row.role], height=0.8, left=weights[row.role], color=colour, alpha=0.4)
            axes.annotate(size(peak), (peak, y), (4, 0), textcoords="offset points", va="center", fontsize=9.5)
        axes.set_yticks(_middles(heights, rows, cases), [_stacked(case) for case in cases], fontsize=9.5)
        axes.set_ylim(heights[-1] - 0.9, heights[0] + 0.9)
        axes.set_xlim(0, 1.22 * max(row.peak_bytes or 0 for row in rows))
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(lambda value, _: size(value) if value else "0")
        axes.set_xlabel("peak memory (solid: weights)")
        lanes(axes)
        label = "; ".join(f"{r.role}, {r.case.words}: {size(r.peak_bytes or 0)}" for r in rows)
        return to_svg(figure, chart, f"Peak memory. {label}")


def step_chart(chart: str, found: list[Share], palette: Palette) -> str:
    """A bar per model: the blocks (solid), the head, the rest (paler) of one decoding step."""
    parts: list[tuple[str, Callable[[Share], float], float]] = [
        ("blocks", lambda s: s.breakdown.blocks, 1.0), ("head", lambda s: s.breakdown.head, 0.6),
        ("rest", lambda s: s.breakdown.rest, 0.28),
    ]  # fmt: skip
    ordered = found[::-1]
    with styled():
        figure = new_figure(74 + 34 * len(found))
        axes = figure.add_subplot()
        for y, share in enumerate(ordered):
            left, colour = 0.0, palette.get(share.breakdown.role, COLOURS["kept"])
            for _, of, alpha in parts:
                width = placeable(1e3 * of(share))
                axes.barh(y, width, height=0.56, left=left, color=colour, alpha=alpha)
                left += width
            words = f"{1e3 * share.step:.3g} ms"
            axes.annotate(words, (left, y), (5, 0), textcoords="offset points", va="center", fontsize=10.5)
        axes.set_yticks(range(len(ordered)), [short(s.breakdown.role) for s in ordered])
        axes.set_xlim(0, placeable(1.25e3 * max(s.step for s in ordered)) or 1.0)
        axes.set_xlabel("milliseconds per step (blocks, head, rest)")
        lanes(axes)
        label = "; ".join(
            f"{s.breakdown.role}: " + ", ".join(f"{n} {duration(of(s))}" for n, of, _ in parts) for s in found
        )
        return to_svg(figure, chart, f"A decoding step. {label}")


def _middles(heights: list[float], rows: list[SpeedRow], cases: list[CaseName]) -> list[float]:
    groups = [[y for y, row in zip(heights, rows, strict=True) if row.case == case] for case in cases]
    return [sum(group) / len(group) for group in groups]


def _stacked(case: CaseName) -> str:
    """In two lines."""
    lengths = f"{case.prompt_tokens} + {case.output_tokens}" if case.output_tokens else f"reading {case.prompt_tokens}"
    return f"batch {case.batch}\n{lengths}"
