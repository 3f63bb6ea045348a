"""A map of what each way of choosing leaves out, block by block."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from shortlm.report.choices_chart import alone, choices, choices_chart
from shortlm.report.evidence import Evidence
from shortlm.report.search import search_of
from shortlm.report.section import Section


def compute(evidence: Evidence) -> dict[str, Any]:
    """The map, and what its legend has to name."""
    plan = evidence.plan
    if plan is None:
        return {}
    rows = choices(plan)
    return {
        "chart": Markup(choices_chart("choices-map", rows, plan.model.n_blocks, plan.protected)),
        "protected": plan.protected, "alone": alone(rows),
    }  # fmt: skip


TEMPLATE = """
<p class="legend"><span class="stays">kept</span> {% if protected %}<span class="protected">protected, kept</span> {% endif %}<span class="removed">left out</span>
{% for part in alone %} <span class="no-{{ part }}">{{ "FFN" if part == "ffn" else part }} alone left out</span>{% endfor %}</p>
<figure class="broad">{{ chart }}</figure>
"""

SECTION = Section("choices", "What each way leaves out", search_of, compute, TEMPLATE)
