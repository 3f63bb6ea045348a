"""Charts of a repair: how far the states are from the dense model's behind every block, and the loss of every model."""

from __future__ import annotations

from matplotlib.axes import Axes

from shortlm.artifacts import RepairStep
from shortlm.report.axes import decades, lanes, legend, placeable
from shortlm.report.numbers import blocks, significant
from shortlm.report.repair import nats
from shortlm.report.svg import COLOURS, SERIES, new_figure, styled, tick_step, to_svg

Palette = dict[str, str]
Line = list[tuple[int, float]]
SMALLEST = 1e-6  # of the largest error: what is below is rounding, and a log scale has no place for 0


def lines(step: RepairStep) -> dict[str, Line]:
    """(Dense model's index, error) of both models, without errors that are nothing beside the largest."""
    depths = sorted(step.depths, key=lambda depth: depth.block)
    found = {
        "cut": [(step.blocks[depth.block], placeable(depth.cut)) for depth in depths],
        "repaired": [(step.blocks[depth.block], placeable(depth.repaired)) for depth in depths],
    }
    largest = max((error for line in found.values() for _, error in line), default=0.0)
    return {name: [(x, y) for x, y in line if y > SMALLEST * largest] for name, line in found.items()}


def depth_chart(chart: str, step: RepairStep, palette: Palette) -> str:
    """A line per model over the dense model's blocks; those that are missing are shaded."""
    found, colours = lines(step), colours_of(palette)
    with styled():
        figure = new_figure(260)
        axes = figure.add_subplot()
        missing = _missing(axes, step)
        for name, line in found.items():
            across, up = [x for x, _ in line], [y for _, y in line]
            axes.plot(across, up, color=colours[name], linewidth=1.7, marker="o", markersize=4.5, label=name)
        _depth_axes(axes, step.against.n_blocks, any(found.values()))
        return to_svg(figure, chart, f"Error of the state by depth. {_ends(found)}; missing blocks: {blocks(missing)}")


def loss_lanes(chart: str, step: RepairStep, palette: Palette) -> str:
    """A lane per model with its loss; the whisker is the standard error of repaired - cut."""
    colours, words = colours_of(palette), nats(step.loss)
    values = {name: placeable(getattr(step.loss, name)) for name, _ in words}
    error = placeable(step.loss.stderr or 0.0)
    with styled():
        figure = new_figure(132)
        axes = figure.add_subplot()
        ends = [values["repaired"] - error, values["repaired"] + error]
        axes.plot(ends, [-2, -2], color=colours["repaired"], linewidth=1.6, solid_capstyle="butt")
        for y, (name, text) in enumerate(words):
            right = max(values[name], ends[1]) if name == "repaired" else values[name]
            axes.plot(values[name], -y, marker="o", markersize=7, color=colours[name])
            axes.annotate(text, (right, -y), (8, 0), textcoords="offset points", va="center", fontsize=10.5)
        axes.set_yticks([0, -1, -2], [name for name, _ in words])
        _loss_axes(axes, [*values.values(), *ends])
        label = ", ".join(f"{name} {text}" for name, text in words)
        return to_svg(figure, chart, f"Loss on validation windows, nats per token: {label}")


def colours_of(palette: Palette) -> Palette:
    """As on the rest of the page; a model that was not measured there gets a colour that no other has."""
    found = {"dense": COLOURS["soft"]} | palette
    for name in ("cut", "repaired"):
        free = [COLOURS[series] for series in SERIES if COLOURS[series] not in found.values()]
        found.setdefault(name, free[0] if free else COLOURS["ink"])
    return found


def _missing(axes: Axes, step: RepairStep) -> list[int]:
    gone = sorted(set(range(step.against.n_blocks)) - set(step.blocks))
    for i in gone:
        axes.axvspan(i - 0.5, i + 0.5, color=COLOURS["gone"], alpha=0.16, linewidth=0, label="removed")
    return gone


def _depth_axes(axes: Axes, n_blocks: int, drawn: bool) -> None:
    axes.set_xlim(-0.7, n_blocks - 0.3)
    axes.set_xticks(range(0, n_blocks, tick_step(n_blocks)))
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y")
    axes.set_xlabel("block (original index)")
    axes.set_ylabel("share of the dense state (log)" if drawn else "share of the dense state")
    if drawn:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        axes.set_ylim(low / 1.2, high * 1.2)
        decades(axes.yaxis)
    legend(axes)


def _loss_axes(axes: Axes, values: list[float]) -> None:
    low, high = min(values), max(values)
    span = (high - low) or abs(high) or 1.0
    axes.set_xlim(low - 0.08 * span, high + 0.3 * span)
    axes.set_ylim(-2.6, 0.6)
    axes.locator_params(axis="x", nbins=4)
    axes.set_xlabel("nats per token (lower is better)")
    lanes(axes)


def _ends(found: dict[str, Line]) -> str:
    """In words: where the lines end."""
    ends = [f"{name} {significant(line[-1][1])} behind block {line[-1][0]}" for name, line in found.items() if line]
    return "; ".join(ends) or "no error anywhere"
