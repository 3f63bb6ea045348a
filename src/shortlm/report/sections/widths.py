"""Widths that were pruned: how many heads and channels stay in every block."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup
from matplotlib.ticker import PercentFormatter

from shortlm.artifacts import WidthStep
from shortlm.report.axes import legend
from shortlm.report.evidence import Evidence
from shortlm.report.section import Section
from shortlm.report.steps import step_rows
from shortlm.report.svg import COLOURS, new_figure, styled, tick_step, to_svg


def width_of(evidence: Evidence) -> WidthStep | None:
    """The last step that pruned widths."""
    steps = evidence.manifest.steps if evidence.manifest else []
    return next((step for step in reversed(steps) if isinstance(step, WidthStep)), None)


def compute(evidence: Evidence) -> dict[str, Any]:
    """The chart and the facts."""
    step = width_of(evidence)
    if step is None or evidence.manifest is None:
        return {}
    row = next(row for row in reversed(step_rows(evidence.manifest)) if row.step is step)
    return {"step": step, "what": row.what, "chart": Markup(width_chart("widths-chart", step))}


def width_chart(chart: str, step: WidthStep) -> str:
    """The share of every block's KV heads and channels that stays, a dot each."""
    found = {
        "KV heads": [(len(w.heads), w.heads_before) for w in step.widths],
        "channels": [(w.channels, w.channels_before) for w in step.widths],
    }
    with styled():
        figure = new_figure(220)
        axes = figure.add_subplot()
        for (name, pairs), colour in zip(found.items(), ("kept", "teal"), strict=True):
            dots = [(i, 100 * left / before) for i, (left, before) in enumerate(pairs) if before]
            across, up = [i for i, _ in dots], [y for _, y in dots]
            axes.plot(across, up, color=COLOURS[colour], linewidth=1.5, marker="o", markersize=5, label=name)
        axes.set_ylim(0, 105)
        axes.yaxis.set_major_formatter(PercentFormatter(decimals=0))
        axes.set_xticks(range(0, len(step.widths), tick_step(len(step.widths))))
        axes.set_xlabel("block")
        axes.set_ylabel("stays")
        axes.grid(axis="y")
        legend(axes)
        label = "; ".join(f"{name} {', '.join(str(left) for left, _ in pairs)}" for name, pairs in found.items())
        return to_svg(figure, chart, f"What stays of every block: {label}")


TEMPLATE = """
<div class="charts">
<figure><figcaption>What stays of every block</figcaption>{{ chart }}</figure>
<div>
<p>{{ what }}.</p>
<dl class="facts">
<div><dt>Parameters</dt><dd>{{ step.found.parameters | count }} → {{ step.parameters_after | count }}</dd></div>
<div><dt>Shape</dt><dd>{{ "as many in every block" if step.shape == "even" else "as the method says" }}</dd></div>
<div><dt>Written as</dt><dd>{{ "a plain config, which loads without shortlm" if step.form == "plain" else "our own type: transformers, after import shortlm" }}</dd></div>
{% if step.data %}<div><dt>Scored on</dt><dd>{{ step.data.sequences | whole }} windows of {{ step.data.source }}</dd></div>{% endif %}
</dl>
</div>
</div>
"""

SECTION = Section("widths", "Widths", width_of, compute, TEMPLATE)
