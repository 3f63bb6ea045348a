"""The learning curve of healing: training and validation loss over the tokens seen, phase after phase."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, MaxNLocator

from shortlm.artifacts import Healing, Phase
from shortlm.report.numbers import significant
from shortlm.report.svg import COLOURS, new_figure, standalone, styled, to_svg

STYLES = ("kept", "gone", "heat")
Points = list[tuple[int, float]]


@dataclass(frozen=True)
class Curves:
    """Tokens (of all phases so far) with nats per target; `ends`: where phases end."""

    training: list[Points]
    validation: dict[str, Points]
    ends: list[int]


def curves(phases: list[Phase]) -> Curves:
    """The points of the chart. The loss of distillation is no cross-entropy and is left out."""
    spans = [phase.log[-1].tokens if phase.log else 0 for phase in phases]
    before = [0, *accumulate(spans)]
    training = [
        [(start + entry.tokens, entry.loss) for entry in phase.log]
        for start, phase in zip(before, phases, strict=False)
        if phase.method != "distill"
    ]
    validation: dict[str, Points] = {}
    for start, phase in zip(before, phases, strict=False):
        for found in phase.validations:
            for name, nats in found.nats_per_token.items():
                validation.setdefault(name, []).append((start + found.tokens, nats))
    return Curves(training, validation, before[1:])


def learning_chart(chart: str, phases: list[Phase]) -> str:
    """Inline SVG: training loss as a thin line, validation sets as lines with dots, ends of phases as rules."""
    found = curves(phases)
    with styled():
        figure = new_figure(230)
        axes = figure.add_subplot()
        for points in found.training:
            axes.plot(*_columns(points), color=COLOURS["soft"], linewidth=0.9, label="training")
        for i, (name, points) in enumerate(found.validation.items()):
            colour = COLOURS[STYLES[i % len(STYLES)]]
            axes.plot(
                *_columns(points),
                color=colour,
                linewidth=1.5,
                marker="o",
                markersize=3.5,
                label=f"validation, {_short(name)}",
            )
        for end in found.ends[:-1]:
            axes.axvline(end, color=COLOURS["rule"], linewidth=0.9, linestyle=(0, (4, 2)))
        _dress(axes, max(found.ends, default=0) or 1)
        return to_svg(figure, chart, _label(found))


def loss_chart(healing: Healing) -> str:
    """The same as a file of its own, `loss.svg`."""
    return standalone(learning_chart("loss", healing.phases))


def _dress(axes: Axes, tokens: int) -> None:
    axes.set_xlabel("tokens")
    axes.set_ylabel("nats per token")
    axes.set_xlim(-0.015 * tokens, 1.02 * tokens)
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.grid(axis="y")
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    if once:
        axes.legend(list(once.values()), list(once), loc="best", fontsize=10)


def _columns(points: Points) -> tuple[list[int], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _label(found: Curves) -> str:
    parts = [f"{n} from {significant(p[0][1])} to {significant(p[-1][1])}" for n, p in found.validation.items()]
    return "Loss over tokens, nats per token. " + "; ".join(parts)


def _short(text: str, most: int = 26) -> str:
    text = text.rsplit("/", 1)[-1]
    return text if len(text) <= most else f"{text[: most - 1]}…"
