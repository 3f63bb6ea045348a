"""Whether the criteria order the blocks alike."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from shortlm.report.agreement import MOST, agreement_chart, comparable, tau_matrix
from shortlm.report.evidence import Evidence
from shortlm.report.numbers import typeset
from shortlm.report.section import Section


def needs(evidence: Evidence) -> bool:
    """Two criteria, or an estimate beside true losses."""
    estimate = evidence.plan and evidence.plan.search and evidence.plan.search.estimate
    return len(comparable(evidence.scores)) > 1 or bool(estimate)


def compute(evidence: Evidence) -> dict[str, Any]:
    """The matrix as a chart, the two that agree most and least, the estimate's correlation."""
    scores, search = evidence.scores, evidence.plan.search if evidence.plan else None
    specs = comparable(scores)[:MOST]
    matrix = tau_matrix(scores, specs) if scores else []
    pairs = [
        (tau, specs[j], specs[i]) for i, row in enumerate(matrix) for j, tau in enumerate(row[:i]) if tau is not None
    ]
    return {
        "chart": Markup(agreement_chart("agreement-chart", specs, matrix)) if len(specs) > 1 else None,
        "ends": [max(pairs), min(pairs)] if len(pairs) > 1 else [],
        "tau": lambda value: typeset(f"{value:.2f}"), "left": len(comparable(scores)) - len(specs), "estimate": search.estimate if search else None,
    }  # fmt: skip


TEMPLATE = """
<div class="charts">
{% if chart %}
<figure><figcaption>Kendall's tau of every two criteria</figcaption>{{ chart }}</figure>
{% endif %}
<div class="prose">
{% if chart %}
<p>Tau is 1 where two criteria put everything in the same order, 0 where their orders have nothing to do with each other, −1 where one
is the other backwards.{% if left %} {{ left }} more criteria are left out.{% endif %}</p>
{% endif %}
{% if ends %}
<p>Closest are <code>{{ ends[0][1] }}</code> and <code>{{ ends[0][2] }}</code> ({{ tau(ends[0][0]) }}), farthest apart <code>{{ ends[1][1] }}</code> and
<code>{{ ends[1][2] }}</code> ({{ tau(ends[1][0]) }}).</p>
{% endif %}
{% if estimate %}
<p>The first-order estimate of what leaving out each of {{ estimate.units | length }} units costs orders them as the measured losses do with a tau of
{{ tau(estimate.rank_correlation) }}.</p>
{% endif %}
</div>
</div>
"""

SECTION = Section("agreement", "Do the criteria agree?", needs, compute, TEMPLATE)
