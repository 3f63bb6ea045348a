"""Perplexities beside the reference's, with the error of their differences, and how many parameters each model has."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from shortlm.report.evidence import Evidence
from shortlm.report.quality import comparison, trained_notes
from shortlm.report.quality_charts import parameters_chart, perplexity_chart
from shortlm.report.section import Section


def compute(evidence: Evidence) -> dict[str, Any]:
    """Rows and charts of all perplexities; what was trained on."""
    measured, palette = evidence.measurements, evidence.palette
    rows = comparison(measured)
    return {
        "perplexity": Markup(perplexity_chart("perplexity", rows, palette)) if rows else None,
        "parameters": Markup(parameters_chart("parameters", measured, palette)),
        "rows": rows,
        "trained": trained_notes(measured),
    }


TEMPLATE = """
<div class="charts">
{% if perplexity %}
<figure><figcaption>Perplexity</figcaption>{{ perplexity }}</figure>
{% endif %}
<figure><figcaption>Parameters</figcaption>{{ parameters }}</figure>
</div>
{% for note in trained %}
<p class="warning"><b>Trained on.</b> {{ note }}.</p>
{% endfor %}
{% if rows %}
<div class="scroll">
<table>
<thead><tr><th>Text</th><th>Model</th><th class="n">Perplexity</th><th class="n wide">Nats per token</th>
<th class="n">Difference, nats</th><th class="n">Perplexity ratio</th></tr></thead>
<tbody>
{% for row in rows %}
{% set first = loop.changed(row.text) %}
<tr{% if first %} class="group"{% endif %}>
<td{% if not first %} class="soft"{% endif %}>{{ row.text }}</td>
<td>{{ row.role }}</td>
<td class="n">{{ with_error(row.result.perplexity, row.stderr) }}
{%- if row.result.healed_on %} <span class="soft">(healed on it)</span>{% endif %}</td>
<td class="n wide">{{ with_error(row.result.nats_per_token, row.result.stderr_nats) }}</td>
{% if row.difference %}
<td class="n">{{ signed_error(row.difference.nats, row.difference.stderr) }}
{%- if not row.difference.paired %} <span class="soft">(other windows)</span>{% endif %}</td>
<td class="n">{% if row.difference.paired %}×&nbsp;{{ row.difference.ratio | significant(4) }}{% else %}–{% endif %}</td>
{% else %}
<td class="n soft">–</td><td class="n soft">–</td>
{% endif %}
</tr>
{% endfor %}
</tbody>
</table>
</div>
<p class="note">± is one standard error over the windows of the text. Differences are to the reference, the first model shown; where both
read the same windows they are taken window by window, so that windows which are hard for both cancel out. Models that read other windows, or other tokens (another tokenizer), can't be compared by perplexity.</p>
{% endif %}
"""

SECTION = Section("quality", "Quality", lambda evidence: evidence.measurements, compute, TEMPLATE)
