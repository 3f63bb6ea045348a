"""Names beside dots so that none covers another: each takes the nearest free place, with a line to its dot if far.

Places are tried in a fixed order, so the same dots always get the same places. All lengths are points of 1/72 inch.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from shortlm.report.svg import COLOURS

SIZE = 10.5  # of the letters
GAP = 9.0  # from a dot to its name
PAD = 2.0  # around a name: browsers' letters are not quite ours
DOT = 5.0  # half of a dot's width
FAR = 14.0  # beyond this a line leads to the dot
LINE = 15.0  # the height of a name with its padding; a figure needs two of them for each to be sure of a place


class Box(NamedTuple):
    """A rectangle; y upwards."""

    left: float
    bottom: float
    right: float
    top: float

    def meets(self, other: Box) -> bool:
        """Whether they have some area in common."""
        across = self.left < other.right and other.left < self.right
        return across and self.bottom < other.top and other.bottom < self.top


def label_dots(figure: Figure, axes: Axes, dots: list[tuple[float, float, float]], names: list[str]) -> None:
    """Write the names beside dots (x, y, half of the whisker's length), which are drawn and whose limits are set.

    The layout of the figure is settled by this: names take no room of their own.
    """
    frame, spots, sizes = _measured(figure, axes, dots, names)
    obstacles = [Box(x - DOT, y - max(DOT, half), x + DOT, y + max(DOT, half)) for x, y, half in spots]
    placed: list[Box] = []
    for i in sorted(range(len(dots)), key=lambda i: (-spots[i][1], spots[i][0], i)):
        box = _best((spots[i][0], spots[i][1]), sizes[i], frame, placed, obstacles)
        placed.append(box)
        _write(axes, dots[i], spots[i], names[i], box)


def _measured(
    figure: Figure, axes: Axes, dots: list[tuple[float, float, float]], names: list[str]
) -> tuple[Box, list[tuple[float, float, float]], list[tuple[float, float]]]:
    """Where the axes and the dots are once the figure is laid out, and how large the names are."""
    probes = [figure.text(0, 0, name, fontsize=SIZE, in_layout=False) for name in names]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.draw_without_rendering()
        extents = [probe.get_window_extent() for probe in probes]
    figure.set_layout_engine("none")
    for probe in probes:
        probe.remove()
    scale = 72 / figure.dpi
    inside = axes.get_window_extent()
    frame = Box(*(float(end * scale) for end in (inside.x0, inside.y0, figure.bbox.width, inside.y1)))
    spots = []
    for x, y, half in dots:
        (left, bottom), (_, top) = axes.transData.transform([(x, y), (x, y + half)])
        spots.append((float(left * scale), float(bottom * scale), float((top - bottom) * scale)))
    return frame, spots, [(float(e.width * scale) + 2 * PAD, LINE) for e in extents]


def _best(
    dot: tuple[float, float], size: tuple[float, float], frame: Box, placed: list[Box], obstacles: list[Box]
) -> Box:
    """The nearest place that meets no name; one that meets dots or whiskers counts as far away."""
    free = [box for box in _places(dot, size, frame) if not any(box.meets(other) for other in placed)]
    return min(free, key=lambda box: _distance(box, dot) + 40 * sum(box.meets(other) for other in obstacles))


def _places(dot: tuple[float, float], size: tuple[float, float], frame: Box) -> list[Box]:
    """To the right of a dot, and to the left if there is room, at every height within the frame."""
    (x, y), (width, height) = dot, size
    left = x - GAP - width
    columns = [min(x + GAP, frame.right - width)] + [left] * (left >= frame.left)
    steps = int((frame.top - frame.bottom - height) // (height / 3))
    heights = [min(max(y - height / 2, frame.bottom), frame.top - height)]
    heights += [frame.bottom + i * height / 3 for i in range(steps + 1)]
    return [Box(left, bottom, left + width, bottom + height) for left in columns for bottom in heights]


def _distance(box: Box, dot: tuple[float, float]) -> float:
    """From a dot to the middle of a name's nearer side; a name on the left counts as a little farther."""
    x, y = dot
    side = 0.0 if box.left > x else 3.0
    return abs((box.bottom + box.top) / 2 - y) + abs(_anchor(box, x) - x) + side


def _anchor(box: Box, x: float) -> float:
    return min(max(x, box.left), box.right)


def _write(axes: Axes, dot: tuple[float, float, float], spot: tuple[float, float, float], name: str, box: Box) -> None:
    middle, on_the_left = (box.bottom + box.top) / 2 - spot[1], box.right < spot[0]
    across = (box.right - PAD if on_the_left else box.left + PAD) - spot[0]
    axes.annotate(name, dot[:2], (across, middle), textcoords="offset points", fontsize=SIZE,
                  ha="right" if on_the_left else "left", va="center_baseline", in_layout=False)  # fmt: skip
    if abs(middle) > FAR:
        end = (_anchor(box, spot[0]) - spot[0], middle)
        line = {"arrowstyle": "-", "color": COLOURS["soft"], "linewidth": 0.7, "shrinkA": 0, "shrinkB": DOT}
        axes.annotate("", dot[:2], end, textcoords="offset points", arrowprops=line, in_layout=False)
