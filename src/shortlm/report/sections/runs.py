"""Whole runs of blocks, by criteria that score them: a heat map by length and start."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from shortlm.report.criteria import explanation
from shortlm.report.evidence import Evidence
from shortlm.report.runs import runs_chart
from shortlm.report.section import Section


def needs(evidence: Evidence) -> bool:
    """A criterion with a table of runs."""
    return any(values.table for values in (evidence.scores.criteria.values() if evidence.scores else ()))


def compute(evidence: Evidence) -> dict[str, Any]:
    """A chart per table; whether the removed blocks are one of its runs."""
    criteria = evidence.scores.criteria if evidence.scores else {}
    removed = evidence.plan.removed if evidence.plan else []
    return {
        "charts": {
            spec: Markup(runs_chart(f"runs-{i}", explanation(spec).name, values.table, removed))
            for i, (spec, values) in enumerate(criteria.items())
            if values.table
        },
        "framed": removed and max(removed) - min(removed) + 1 == len(removed),
    }


TEMPLATE = """
<div class="charts">
{% for spec, chart in charts.items() %}
<figure><figcaption>Angular distance across runs <code>{{ spec }}</code></figcaption>{{ chart }}</figure>
{% endfor %}
<div class="prose">
<p>Each cell is a run of neighbouring blocks: its first block to the right, its length upwards. The colour is the
angle between the state that enters the run and the state that leaves it.</p>
<p>Strong colour means that the run hardly turns the state, so a model without it may get away with the shortcut. Dots
mark the closest run of each length.{% if framed %}
 The framed cell is the run that was removed.{% endif %}</p>
</div>
</div>
"""

SECTION = Section("runs", "Runs of blocks", needs, compute, TEMPLATE)
