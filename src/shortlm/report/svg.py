"""From a matplotlib figure to SVG that lives inside a page: themed by CSS, accessible, the same bytes every time.

Charts are drawn in sentinel colours, which become CSS variables here (`var(--ink)`), so that light, dark and
print need one drawing. Text stays text and inherits the font of the page. Ids get the chart's name in front,
since all charts share one document.
"""

from __future__ import annotations

import io
import re
import warnings
from html import escape
from typing import Any

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

NAMES = ("ink", "soft", "rule", "paper", "kept", "gone", "heat", "teal", "violet", "gold", "rose")
COLOURS = {name: f"#0{i:x}0b0{i:x}" for i, name in enumerate(NAMES, start=1)}
SERIES = ("kept", "teal", "violet", "gold", "rose", "heat")  # models beside the reference, in this order
WIDTH = 430  # of a chart, in CSS pixels
STYLE: Any = {  # rc_context wants each key spelled as a literal type
    "svg.fonttype": "none", "text.parse_math": False, "axes.unicode_minus": True,
    "font.family": "DejaVu Sans", "font.size": 11, "hatch.linewidth": 0.8,
    "text.color": COLOURS["ink"], "axes.labelcolor": COLOURS["soft"], "axes.edgecolor": COLOURS["rule"],
    "xtick.color": COLOURS["rule"], "ytick.color": COLOURS["rule"],
    "xtick.labelcolor": COLOURS["soft"], "ytick.labelcolor": COLOURS["soft"],
    "axes.facecolor": "none", "figure.facecolor": "none", "axes.linewidth": 0.8,
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "grid.color": COLOURS["rule"], "grid.linewidth": 0.7, "xtick.major.width": 0.8, "ytick.major.width": 0.8,
    "legend.frameon": False, "axes.labelsize": 11, "xtick.labelsize": 10.5, "ytick.labelsize": 10.5,
}  # fmt: skip


def tick_step(n_blocks: int) -> int:
    """Every so many block indices fit below a chart."""
    return next(step for step in (1, 2, 5, 10, 20, 50, 100, 1000) if n_blocks <= 16 * step)


def styled():
    """The context in which figures are built and rendered; restores matplotlib's settings afterwards."""
    return matplotlib.rc_context(STYLE)


def new_figure(height: float) -> Figure:
    """A figure of WIDTH x `height` CSS pixels at its natural size (SVG has 72 units per inch)."""
    return Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")


def to_svg(figure: Figure, chart: str, label: str, notes: dict[str, str] | None = None) -> str:
    """Inline SVG. `label` says in words what is drawn; `notes` are tooltips for artists by their gid."""
    FigureCanvasSVG(figure)
    text = io.StringIO()
    with warnings.catch_warnings(), matplotlib.rc_context(STYLE | {"svg.hashsalt": chart}):
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the browser has more fonts than we measure with
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    body, box = _body(text.getvalue())
    for gid, note in (notes or {}).items():
        body = body.replace(f'<g id="{gid}">', f'<g id="{gid}"><title>{escape(note)}</title>')
    opening = f'<svg class="chart" id="{chart}" role="img" aria-label="{escape(label)}" viewBox="{box}" '
    return f'{opening}xmlns:xlink="http://www.w3.org/1999/xlink">{_unique(_themed(body), chart)}</svg>'


def _body(text: str) -> tuple[str, str]:
    """The content of the svg element, without comments, metadata and global styles; and its view box."""
    opening = re.search(r"<svg\b[^>]*>", text, re.DOTALL)
    box = re.search(r'viewBox="([^"]+)"', opening[0]) if opening else None
    if opening is None or box is None:
        raise ValueError("matplotlib wrote no SVG element")
    body = text[opening.end() : text.rindex("</svg>")]
    for pattern in (r"<!--.*?-->", r"<metadata>.*?</metadata>", r"<style[^>]*>.*?</style>", r"<defs>\s*</defs>"):
        body = re.sub(pattern, "", body, flags=re.DOTALL)
    return re.sub(r"\n\s*", "\n", body), box[1]


def _themed(body: str) -> str:
    for name, colour in COLOURS.items():
        body = body.replace(colour, f"var(--{name})")
    body = re.sub(r"font: ([\d.]+)px [^;\"]+", r"font-size: \1px", body)
    return re.sub(r"font-family: [^;\"]+;?", "", body)


def _unique(body: str, chart: str) -> str:
    body = re.sub(r'\bid="([^"]+)"', rf'id="{chart}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{chart}-\1)", body)
    return re.sub(r'href="#([^"]+)"', rf'href="#{chart}-\1"', body)


def standalone(svg: str) -> str:
    """An inline chart as a file of its own: colours for light and dark inside, a background, the namespace."""
    light = {"ink": "#1b2127", "soft": "#5b6670", "rule": "#dde2e6", "paper": "#ffffff"}
    dark = {"ink": "#e4e8eb", "soft": "#9ba6af", "rule": "#303840", "paper": "#14181c"}
    series = {"kept": "#4d7496", "gone": "#c4532d", "heat": "#1f5f93", "teal": "#1f8a70", "violet": "#7a5aa6"}
    series |= {"gold": "#a8710f", "rose": "#b5486b"}
    bright = {"kept": "#7aa3c7", "gone": "#ef8a60", "heat": "#86bdee", "teal": "#4fc3a1", "violet": "#b69ae0"}
    bright |= {"gold": "#dfae4f", "rose": "#ee8fb0"}
    rules = [f"svg.chart {{ {_variables(light | series)} background: var(--paper); font-family: sans-serif }}"]
    rules.append(f"@media (prefers-color-scheme: dark) {{ svg.chart {{ {_variables(dark | bright)} }} }}")
    opening, rest = svg.split(">", 1)
    return f'{opening} xmlns="http://www.w3.org/2000/svg"><style>{" ".join(rules)}</style>{rest}\n'


def _variables(colours: dict[str, str]) -> str:
    return " ".join(f"--{name}: {value};" for name, value in colours.items())
