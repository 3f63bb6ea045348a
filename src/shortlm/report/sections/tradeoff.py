"""Quality against what it costs: a dot per model, by size and by speed."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from shortlm.report.evidence import Evidence
from shortlm.report.quality_charts import tradeoff_chart
from shortlm.report.section import Section
from shortlm.report.tradeoff import (
    Point,
    Quality,
    by_bytes,
    by_latency,
    by_size,
    by_speed,
    by_throughput,
    qualities,
    quality,
)

MOST = 13  # qualities that are drawn


def needs(evidence: Evidence) -> bool:
    """Two models whose quality can be compared."""
    return bool(by_size(evidence.measurements) or by_speed(evidence.measurements, evidence.benchmark)[0])


def compute(evidence: Evidence) -> dict[str, Any]:
    """A chart by size, and by speed: of the smallest batch and of the largest, each if there are points for it."""
    (times, small), (speeds, large) = (
        f(evidence.measurements, evidence.benchmark) for f in (by_latency, by_throughput)
    )
    return {
        "by_size": _chart("by-size", by_size(evidence.measurements), "parameters", evidence),
        "by_latency": _chart("by-latency", times, f"milliseconds per token ({small})", evidence),
        "by_speed": _chart("by-speed", speeds, f"tokens per second ({large})", evidence),
        "by_bytes": _chart(
            "by-bytes", _at(by_bytes(evidence.measurements), quality(evidence.measurements)), "bytes on disk", evidence
        ),
        "others": _others(times or by_size(evidence.measurements), small if times else "", evidence),
    }


def _at(places: dict[str, float], good: Quality | None) -> list[Point]:
    """The models at these places, as high as they are good."""
    return [Point(role, x, *good.values[role]) for role, x in places.items()] if good else []


def _others(points: list[Point], case: str, evidence: Evidence) -> list[tuple[str, Markup]]:
    """Of three models or more every other quality that all have, by latency or else by size."""
    if len(points) < 3:
        return []
    places = {point.role: point.x for point in points}
    x = f"milliseconds per token ({case})" if case else "parameters"
    found = []
    for number, good in enumerate(qualities(evidence.measurements)[1:MOST]):
        if places.keys() == good.values.keys():
            chart = tradeoff_chart(
                f"by-other-{number}", _at(places, good), x, good.label, evidence.palette, good.by_factors
            )
            found.append((good.label, Markup(chart)))
    return found


def _chart(chart: str, points: list[Point], x: str, evidence: Evidence) -> Markup | None:
    good = quality(evidence.measurements)
    if not points or good is None:
        return None
    return Markup(tradeoff_chart(chart, points, x, good.label, evidence.palette, good.by_factors))


TEMPLATE = """
<div class="charts">
{% if by_size and not by_latency %}<figure><figcaption>Quality against size</figcaption>{{ by_size }}</figure>{% endif %}
{% if by_latency %}<figure><figcaption>Quality against decoding latency</figcaption>{{ by_latency }}</figure>{% endif %}
{% if by_speed %}<figure><figcaption>Quality against {{ "throughput" if by_latency else "speed" }}</figcaption>{{ by_speed }}</figure>{% endif %}
{% if by_size and by_latency %}<figure><figcaption>Quality against size</figcaption>{{ by_size }}</figure>{% endif %}
{% if by_bytes %}<figure><figcaption>Quality against weights on disk</figcaption>{{ by_bytes }}</figure>{% endif %}
</div>
{% if others %}
<details><summary>Every task and text</summary>
<div class="charts">
{% for name, chart in others %}<figure><figcaption>{{ name }}</figcaption>{{ chart }}</figure>
{% endfor %}
</div></details>
{% endif %}
"""

SECTION = Section("tradeoff", "What quality costs", needs, compute, TEMPLATE)
