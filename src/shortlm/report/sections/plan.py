"""Which blocks went, which stayed, and how they were chosen."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from shortlm.report.evidence import Evidence
from shortlm.report.section import LEGEND, Section
from shortlm.report.units import sublayers
from shortlm.units import ATTENTION, FFN

PARTLY = Markup('<span class="partly">attention or FFN removed</span></p>')


def compute(evidence: Evidence) -> dict[str, Any]:
    """The plan, blocks that go or lose a sublayer, a legend that names what there is."""
    plan = evidence.plan
    if plan is None:
        return {}
    units = sublayers(plan.units)
    attention, ffn = ({unit.block for unit in units if unit.part == part} for part in (ATTENTION, FFN))
    alone = dict.fromkeys(attention - ffn, "attention") | dict.fromkeys(ffn - attention, "FFN")
    legend = LEGEND.replace(Markup("</p>"), " " + PARTLY) if alone else LEGEND
    return {"plan": plan, "gone": attention & ffn, "alone": alone, "legend": legend}


TEMPLATE = """
<ol class="strip" aria-label="Blocks of the original model">
{% for i in range(plan.model.n_blocks) %}
{% set partly = alone.get(i) %}
{% set state = "removed" if i in gone else "partly" if partly else "protected" if i in plan.protected else "kept" %}
{% set words = partly ~ " removed" if partly else state %}
<li class="{{ state }}" title="block {{ i }}: {{ words }}">{{ i }}{% if partly %}<small aria-hidden="true">{{ "attn" if partly == "attention" else partly }}</small>{% endif %}<span class="unseen"> {{ words }}</span></li>
{% endfor %}
</ol>
{{ legend }}
<dl class="facts">
<div><dt>Removed</dt><dd>{{ plan.removed | blocks }} <span class="soft">(original indices, from 0)</span></dd></div>
{% if plan.removed_sublayers %}
<div><dt>Sublayers removed</dt><dd>{{ plan.removed_sublayers | units }}</dd></div>
{% endif %}
<div><dt>Chosen by</dt><dd>{% if plan.criterion != "none" %}<code>{{ plan.criterion }}</code>, {% endif %}{{ plan.method }}</dd></div>
<div><dt>Budget</dt><dd>{{ plan.budget }}</dd></div>
<div><dt>Protected</dt><dd>{{ plan.protected | blocks }}</dd></div>
{% if plan.agreement is not none %}
<div><dt>Stability</dt><dd>{{ "%.0f" | format(100 * plan.agreement) }}&nbsp;% of the bootstrap resamples of the
text choose the same blocks</dd></div>
{% endif %}
{% if plan.search %}
<div><dt>Asked the model</dt><dd>{{ plan.search.sets | whole }} sets on {{ plan.search.data.sequences | whole }} windows of
{{ plan.search.data.source }}, {{ plan.search.block_forwards | whole }} block forwards</dd></div>
{% endif %}
{% if plan.source %}
<div><dt>Scores from</dt><dd>{{ plan.source }}</dd></div>
{% endif %}
</dl>
"""

SECTION = Section("plan", "The plan", lambda evidence: evidence.plan, compute, TEMPLATE)
