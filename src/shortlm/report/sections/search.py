"""What choosing by asking the model came to: every way's loss by size and by cost, how sure the choice is."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from shortlm.report.evidence import Evidence
from shortlm.report.search import base_objective, search_of, ways
from shortlm.report.search_charts import cost_chart, size_chart
from shortlm.report.search_words import objective, sentences
from shortlm.report.section import Section


def needs(evidence: Evidence) -> bool:
    """Ways and their sets, or something to say."""
    search = evidence.plan.search if evidence.plan else None
    return search is not None and bool(search_of(evidence) or search.certainty or search.notes)


def compute(evidence: Evidence) -> dict[str, Any]:
    """Sentences, both charts, a row per way."""
    plan = evidence.plan
    if plan is None or plan.search is None:
        return {}
    search = plan.search
    found, made_small = ways(plan), objective(search)
    held_out = any(step.held_out for way in found for step in way.steps)
    return {
        "search": search, "ways": found, "words": sentences(plan), "objective": made_small, "held_out": held_out,
        "base": base_objective(search), "hollow": held_out and any(way.unheld for way in found),
        "by_size": Markup(size_chart("by-removed", found, plan.model, "held-out loss" if held_out else made_small))
        if any(step.share is not None for way in found for step in way.by_size())
        else None,
        "by_cost": Markup(cost_chart("by-forwards", found, made_small)) if found else None,
    }  # fmt: skip


TEMPLATE = """
{% for sentence in words %}
<p>{{ sentence }}</p>
{% endfor %}
{% for note in search.notes %}
<p class="warning"><b>Note.</b> {{ note }}.</p>
{% endfor %}
{% if ways %}
<div class="charts">
{% if by_size %}
<figure><figcaption>What leaving out more costs</figcaption>{{ by_size }}
<p class="note">Beside the whole model (dashed){% if held_out %}, on text that no search saw{% endif %}; whiskers are one standard error of
that difference. Ways whose sets are all of one size have one point, their best.{% if hollow %} Hollow: no held-out loss is known, this is on the text of the search.{% endif %}</p></figure>
{% endif %}
<figure><figcaption>What finding them took</figcaption>{{ by_cost }}
<p class="note">On the text of the search, beside the whole model. Each dot is a set about as large as the last one of its way; a line goes down as better
ones are found.</p></figure>
</div>
<div class="scroll">
<table>
<thead><tr><th>Way</th><th class="wide">Leaves out</th><th class="n wide">Of the parameters</th><th class="n">Search {{ objective }}</th>
{% if held_out %}<th class="n">Held-out loss</th>{% endif %}<th class="n">Added loss</th><th class="n wide">Block forwards</th></tr></thead>
<tbody>
<tr><td class="soft">whole model</td><td class="soft wide">nothing</td><td class="n soft wide">–</td><td class="n">{{ base | significant(4) }}</td>
{% if held_out %}<td class="n">{{ search.held_out_base_nats | significant(4) }}</td>{% endif %}<td class="n soft">–</td><td class="n soft wide">–</td></tr>
{% for way in ways %}
{% set found = way.last.found %}
<tr><td>{{ way.name }}{% if way.chose %} <span class="tag">the plan</span>{% endif %}</td><td class="long wide">{{ found.units | units }}</td>
<td class="n wide">{% if way.last.share is none %}–{% else %}{{ "%.1f" | format(100 * way.last.share) }}&nbsp;%{% endif %}</td>
<td class="n">{{ found.nats | significant(4) }}</td>
{% if held_out %}<td class="n">{% if found.held_out_nats is none %}–{% else %}{{ found.held_out_nats | significant(4) }}{% endif %}</td>{% endif %}
<td class="n">{{ signed_error(*way.last.rise) }}{% if held_out and not way.last.held_out %} <span class="soft">(search)</span>{% endif %}</td>
<td class="n wide">{{ way.block_forwards | whole }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
<p class="note">The last set of every way; nats per token.{% if search.spared %} {{ search.spared | whole }} candidates were not evaluated, or not to the end, since they could not win.{% endif %}
{% if search.held_out %} Held-out text: {{ search.held_out.sequences | whole }} windows of {{ search.held_out.source }}.{% endif %}</p>
{% endif %}
"""

SECTION = Section("search", "The search", needs, compute, TEMPLATE)
