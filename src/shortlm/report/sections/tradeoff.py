"""Quality against what it costs: a dot per model, by size and by speed."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from shortlm.report.evidence import Evidence
from shortlm.report.quality_charts import tradeoff_chart
from shortlm.report.section import Section
from shortlm.report.tradeoff import Point, by_size, by_speed, quality


def needs(evidence: Evidence) -> bool:
    """Two models whose quality can be compared."""
    return bool(by_size(evidence.measurements) or by_speed(evidence.measurements, evidence.benchmark)[0])


def compute(evidence: Evidence) -> dict[str, Any]:
    """A chart by size and one by speed, each if there are points for it."""
    speeds, case = by_speed(evidence.measurements, evidence.benchmark)
    return {
        "by_size": _chart("by-size", by_size(evidence.measurements), "parameters", evidence),
        "by_speed": _chart("by-speed", speeds, f"tokens per second ({case})", evidence),
    }


def _chart(chart: str, points: list[Point], x: str, evidence: Evidence) -> Markup | None:
    good = quality(evidence.measurements)
    return Markup(tradeoff_chart(chart, points, x, good.label if good else "", evidence.palette)) if points else None


TEMPLATE = """
<div class="charts">
{% if by_size %}<figure><figcaption>Quality against size</figcaption>{{ by_size }}</figure>{% endif %}
{% if by_speed %}<figure><figcaption>Quality against speed</figcaption>{{ by_speed }}</figure>{% endif %}
</div>
"""

SECTION = Section("tradeoff", "What quality costs", needs, compute, TEMPLATE)
