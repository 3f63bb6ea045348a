"""Tasks of lm-evaluation-harness, question by question beside the reference."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from shortlm.report.evidence import Evidence
from shortlm.report.quality_charts import tasks_chart
from shortlm.report.section import Section
from shortlm.report.tasks import task_rows


def compute(evidence: Evidence) -> dict[str, Any]:
    """A row per task and model, then per mean and model; their chart."""
    rows = task_rows(evidence.measurements)
    shown = {"others": any(row.others for row in rows), "chances": any(row.chance is not None for row in rows)}
    return shown | {"rows": rows, "chart": Markup(tasks_chart("tasks-chart", rows, evidence.palette))}


TEMPLATE = """
<div class="charts">
<figure><figcaption>Task results</figcaption>{{ chart }}</figure>
<div class="prose">
<p>Measured by lm-evaluation-harness; ± and whiskers are one standard error{% if chances %}; the dotted lines are what guessing would give{% endif %}.</p>
<p>Differences are to the reference, question by question where both models answered the same ones: what both get right says
nothing about the difference.</p>
<p>p is how likely so large a difference is if the models are equally good (McNemar's exact test where answers are right or
wrong, for means and other metrics by the normal distribution). Differences with p below 0.05 are bold; of twenty true zeros, one is bold by chance.</p>
</div>
</div>
<div class="scroll">
<table>
<thead><tr><th>Task</th><th>Metric</th><th>Model</th><th class="n">Value</th>{% if others %}<th>Other metrics</th>{% endif %}{% if chances %}<th class="n">Chance</th>{% endif %}<th class="n">Difference</th>
<th class="n">p</th><th class="n wide">Questions</th></tr></thead>
<tbody>
{% for row in rows %}
{% set first = loop.changed(row.task, row.metric) %}
<tr{% if first %} class="group"{% endif %}>
<td{% if not first %} class="soft"{% endif %}>{{ row.task }}{% if row.generates and first %} <span class="soft">(written)</span>{% endif %}</td>
<td{% if not first %} class="soft"{% endif %}>{{ row.metric }}{% if row.mean_of %} of {{ row.mean_of }}{% endif %}</td>
<td>{{ row.role }}</td>
<td class="n">{{ with_error(row.value, row.stderr) }}</td>
{% if others %}<td class="soft">{% for name, value, error in row.others %}{{ name }} {{ with_error(value, error) }}{% if not loop.last %}, {% endif %}{% endfor %}</td>{% endif %}
{% if chances %}<td class="n soft">{% if row.chance is none %}–{% else %}{{ row.chance | significant }}{% endif %}</td>{% endif %}
{% if row.difference %}
<td class="n">{% if row.difference.sure %}<b>{{ signed_error(row.difference.value, row.difference.stderr) }}</b>{% else %}{{ signed_error(row.difference.value, row.difference.stderr) }}{% endif %}
{%- if not row.difference.paired %} <span class="soft">(other questions)</span>{% endif %}</td>
<td class="n">{{ chance(row.difference.p) }}</td>
{% else %}
<td class="n soft">–</td><td class="n soft">–</td>
{% endif %}
<td class="n wide">{{ row.questions | whole }}{% if row.available > row.questions %} <span class="soft">of {{ row.available | whole }}</span>{% endif %}</td>
</tr>
{% endfor %}
</tbody>
</table>
</div>
"""

SECTION = Section("tasks", "Tasks", lambda evidence: task_rows(evidence.measurements), compute, TEMPLATE)
