"""The scores of every block or sublayer by every criterion, and whether the criteria agree."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from shortlm.artifacts import BlockScores, CutPlan
from shortlm.report.criteria import explanation
from shortlm.report.evidence import Evidence
from shortlm.report.score_charts import ceiling, scores_chart, within_reach
from shortlm.report.section import LEGEND, Section
from shortlm.report.units import sublayers


def compute(evidence: Evidence) -> dict[str, Any]:
    """Per criterion: what it measures, its chart, its order of the units, and how sure that order is."""
    scores, plan = evidence.scores, evidence.plan
    if scores is None:
        return {}
    criteria = [_criterion(f"scores-{i}", spec, scores, plan) for i, spec in enumerate(scores.criteria)]
    return {
        "scores": scores, "plan": plan, "legend": LEGEND, "criteria": criteria, "what": "unit" if scores.units else "block",
        "cut_off": any(c["cut_off"] for c in criteria),
    }  # fmt: skip


def _criterion(chart: str, spec: str, scores: BlockScores, plan: CutPlan | None) -> dict[str, Any]:
    about, values, dense, units = explanation(spec), scores.criteria[spec], scores.base_perplexity, scores.rows
    if scores.units:
        about = about._replace(**{field: text.replace("block", "unit") for field, text in about._asdict().items()})
    gone, safe = (sublayers(plan.units), plan.protected) if plan else (frozenset(), [])
    removed = [i for i, unit in enumerate(units) if sublayers([unit]) <= gone]
    protected = [i for i, unit in enumerate(units) if unit.block in safe]
    shown, order = max(8, len(removed)), values.order()
    return {
        "spec": spec, "about": about, "unit": values.unit, "chose": bool(plan and plan.criterion == spec),
        "chart": Markup(scores_chart(chart, about.name, values, removed, protected, dense, units)),
        "cut_off": ceiling(*within_reach(values, dense)[:2]) is not None,
        "order": [(units[i], i in removed) for i in order[:shown]], "more": len(order) > shown,
        "agreement": values.rank_agreement, "race": values.race if values.race and values.race.early else None,
    }  # fmt: skip


TEMPLATE = """
<p>A low score calls a {{ what }} unimportant{% if scores.units %}; attention and FFN of a block are units of their own{% endif %}.
{% if scores.data %}Scored on {{ scores.data.sequences }} windows, {{ scores.data.tokens | whole }} tokens of
{{ scores.data.source }}; whiskers are one standard error over the windows (for perplexities: of the difference to the
whole model on the same windows, since a hard window is hard whichever {{ what }} is missing).{% endif %} 
{% if scores.base_perplexity is not none and "perplexity" in criteria | map(attribute="unit") | list %}
The dashed line is the whole model's perplexity, {{ scores.base_perplexity | significant }}.
{% if cut_off %}Bars too tall for their chart are cut off and carry their value.{% endif %}
{% endif %}</p>
{% for c in criteria if c.race %}
<p class="warning"><b>A race.</b> <code>{{ c.spec }}</code> was scored by a race, which ended after {{ c.race.longest }} windows. Blocks that left it early (pale, hatched:
{{ c.race.early | blocks }}) are scored on fewer windows than the others and than the whole model; scores on other windows can't be compared, so they have no order.</p>
{% endfor %}
{% if plan %}
{{ legend }}
{% endif %}
<div class="charts">
{% for c in criteria %}
<figure>
<figcaption>{{ c.about.name }} <code>{{ c.spec }}</code>{% if c.chose %} <span class="tag">used for the plan</span>{% endif %}</figcaption>
{{ c.chart }}
{% if c.about.measures %}<p class="note">{{ c.about.measures }}</p>{% endif %}
</figure>
{% endfor %}
</div>
<h3>The order of each criterion</h3>
<div class="scroll">
<table class="narrow">
<thead><tr><th>Criterion</th><th>Least important {{ what }}s first</th><th class="n">Rank agreement</th></tr></thead>
<tbody>
{% for c in criteria %}
<tr><td><code>{{ c.spec }}</code></td>
{% if c.race %}
<td>found by the race: {{ c.race.selected | blocks }} <span class="soft">(by index; a race has no order)</span></td>
<td class="n"><span class="soft">–</span></td></tr>
{% else %}
<td class="order">{% for unit, removed in c.order %}<span{% if removed %} class="removed"{% endif %}>{{ unit }}</span>
{% endfor %}{% if c.more %}…{% endif %}</td>
<td class="n">{% if c.agreement is not none %}{{ "%.2f" | format(c.agreement) }}{% else %}<span class="soft">–</span>{% endif %}</td></tr>
{% endif %}
{% endfor %}
</tbody>
</table>
</div>
<p class="note">{% if plan %}Removed {{ what }}s are coloured. {% endif %}Rank agreement is the mean Kendall tau between the
order shown and the orders that resampled windows give: 1 is always the same order, 0 is chance.</p>
"""

SECTION = Section("scores", "Block scores", lambda evidence: evidence.scores, compute, TEMPLATE)
