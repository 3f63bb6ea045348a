"""Which blocks went, which stayed, and how they were chosen."""

from __future__ import annotations

from shortlm.report.section import LEGEND, Section

TEMPLATE = """
<ol class="strip" aria-label="Blocks of the original model">
{% for i in range(plan.model.n_blocks) %}
{% set state = "removed" if i in plan.removed else "protected" if i in plan.protected else "kept" %}
<li class="{{ state }}" title="block {{ i }}: {{ state }}">{{ i }}<span class="unseen"> {{ state }}</span></li>
{% endfor %}
</ol>
{{ legend }}
<dl class="facts">
<div><dt>Removed</dt><dd>{{ plan.removed | blocks }} <span class="soft">(original indices, from 0)</span></dd></div>
{% if plan.removed_sublayers %}
<div><dt>Sublayers removed</dt><dd>{{ plan.removed_sublayers | join(", ") }}</dd></div>
{% endif %}
<div><dt>Chosen by</dt><dd>{% if plan.criterion != "none" %}<code>{{ plan.criterion }}</code>, {% endif %}{{ plan.method }}</dd></div>
<div><dt>Budget</dt><dd>{{ plan.budget }}</dd></div>
<div><dt>Protected</dt><dd>{{ plan.protected | blocks }}</dd></div>
{% if plan.agreement is not none %}
<div><dt>Stability</dt><dd>{{ "%.0f" | format(100 * plan.agreement) }}&nbsp;% of the bootstrap resamples of the
text choose the same blocks</dd></div>
{% endif %}
{% if plan.search %}
<div><dt>Asked the model</dt><dd>{{ plan.search.tried | length | whole }} sets on {{ plan.search.data.sequences | whole }} windows of
{{ plan.search.data.source }}, {{ plan.search.block_forwards | whole }} block forwards</dd></div>
{% endif %}
{% if plan.source %}
<div><dt>Scores from</dt><dd>{{ plan.source }}</dd></div>
{% endif %}
</dl>
"""

SECTION = Section(
    "plan", "The plan", lambda evidence: evidence.plan, lambda evidence: {"plan": evidence.plan, "legend": LEGEND},
    TEMPLATE,
)  # fmt: skip
