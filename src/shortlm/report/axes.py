"""How axes look: labels without clutter on either scale, short names."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, ScalarFormatter

from shortlm.report.numbers import significant, tick

LARGEST = 1e60  # what is beyond it, or nearer to 0 than its inverse, matplotlib can't place on an axis


def placeable(value: float) -> float:
    """The nearest value that an axis can hold; what is not a number stands at 0."""
    if math.isnan(value) or abs(value) < 1 / LARGEST:
        return 0.0
    return min(max(value, -LARGEST), LARGEST)


def placeable_on_log(value: float) -> float:
    """The same for a logarithmic axis, which has no place for 0 and less."""
    return max(placeable(value), 1 / LARGEST)


def decades(axis: Axis) -> None:
    """1, 2, 5, 10 ... within two decades, else powers of ten; even steps within less than one."""
    low, high = axis.get_view_interval()
    locator = LogLocator(subs=(1, 2, 5) if high / low < 300 else (1,), numticks=7)
    axis.set_major_locator(locator if high / low > 8 else MaxNLocator(4))
    axis.set_major_formatter(lambda value, _: f"{value:g}" if 1e-4 <= value < 1e6 else significant(value, 1))
    axis.set_minor_locator(NullLocator())


def engineering(largest: float):
    """Plain numbers, or 10 K, 2 M where they are large."""
    if largest >= 1e4:
        return lambda value, _: tick(value)
    formatter = ScalarFormatter(useOffset=False, useMathText=False)
    formatter.set_scientific(False)
    return formatter


def lanes(axes: Axes) -> None:
    """For charts that are read along lines: a grid across, no frame on the left."""
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")


def legend(axes: Axes, title: str | None = None) -> None:
    """Each name once, if there are several."""
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    if len(once) > 1:
        axes.legend(list(once.values()), list(once), loc="best", fontsize=10, title=title)


def short(text: str, most: int = 22) -> str:
    """With its middle left out if it is long."""
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[: most // 2]}…{text[1 - most // 2 :]}"
