"""Names in the chart of quality against size: none covers another, a dot, the axes' numbers, or leaves the chart."""

from __future__ import annotations

import itertools
import random

import pytest
from matplotlib.backends.backend_svg import FigureCanvasSVG

from shortlm.report.quality_charts import tradeoff_chart, tradeoff_figure
from shortlm.report.svg import styled
from shortlm.report.tradeoff import Point

LONG = "an organisation/its-model-of-many-words-v0.1 which is cut"


def drawn(points: list[Point]):
    """Label boxes, dots in pixels, the axes and the figure, as the SVG has them (72 pixels an inch)."""
    with styled():
        figure = tradeoff_figure(points, "parameters", "perplexity", {})
        FigureCanvasSVG(figure)
        figure.set_dpi(72)
        figure.draw_without_rendering()
        (axes,) = figure.axes
        boxes = [text.get_window_extent() for text in axes.texts if text.get_text()]
        dots = [tuple(axes.transData.transform((p.x, p.y))) for p in points]
        return boxes, dots, axes.get_window_extent(), figure.bbox


def point(role: str, x: float, y: float, stderr: float | None = 0.012) -> Point:
    return Point(role, x, y, stderr)


rng = random.Random(5)
CASES = {
    "cut and healed": [point("dense", 1.87e6, 2.03), point("cut", 1.28e6, 2.229), point("healed", 1.28e6, 2.041)],
    "almost equal": [point("dense", 1.87e6, 2.03), point("cut", 1.28e6, 2.0411), point("healed", 1.281e6, 2.041)],
    "all equal": [point(f"{i} {LONG}", 1e6, 2.0) for i in range(12)],
    "long names at both ends": [point(LONG, 1e6, 2.0), point(LONG, 1.01e6, 2.0), point(LONG, 2e6, 2.0, None)],
    "a column": [point(f"model {i}", 1e6, 2.0 + i / 100) for i in range(20)],
    "a row": [point(f"model number {i} of many", 1e6 + i, 0.9, 0.2) for i in range(20)],
    "a crowd": [point(f"model {i}", rng.choice((1e6, 1.1e6)), rng.choice((2.0, 2.001))) for i in range(16)],
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_no_name_covers_another(name):
    points = CASES[name]
    boxes, _, inside, whole = drawn(points)
    assert len(boxes) == len(points)
    for a, b in itertools.combinations(boxes, 2):
        assert not (a.x0 < b.x1 and b.x0 < a.x1 and a.y0 < b.y1 and b.y0 < a.y1), (a, b)
    for box in boxes:
        assert inside.x0 <= box.x0 and box.x1 <= whole.x1 and inside.y0 - 1 <= box.y0 and box.y1 <= inside.y1 + 1


@pytest.mark.parametrize("name", ["cut and healed", "almost equal", "long names at both ends"])
def test_names_leave_the_dots_free_and_stay_near(name):
    boxes, dots, _, _ = drawn(CASES[name])
    for box in boxes:
        assert not any(box.x0 < x < box.x1 and box.y0 < y < box.y1 for x, y in dots)
        assert min(abs(box.y0 + box.height / 2 - y) for _, y in dots) < 40


def test_a_far_name_has_a_line_to_its_dot():
    """Of a column of equal dots, those that lie at their dot's height need none."""
    with styled():
        axes = tradeoff_figure(CASES["all equal"], "x", "y", {}).axes[0]
    lines = [text for text in axes.texts if not text.get_text()]
    assert 8 <= len(lines) < 12 and all(line.arrow_patch for line in lines)
    with styled():
        axes = tradeoff_figure(CASES["cut and healed"], "x", "y", {}).axes[0]
    assert all(text.get_text() for text in axes.texts)


def test_the_same_points_give_the_same_chart():
    first, second = (tradeoff_chart("t", CASES["a crowd"], "x", "y", {}) for _ in range(2))
    assert first == second and "model 15" in first
