"""How training after the cut went: the learning curve, and every phase in a row."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from shortlm.report.evidence import Evidence
from shortlm.report.learning import learning_chart
from shortlm.report.section import Section


def compute(evidence: Evidence) -> dict[str, Any]:
    """The phases and their curve."""
    phases = evidence.healing.phases if evidence.healing else []
    return {"phases": phases, "curve": Markup(learning_chart("learning", phases))}


TEMPLATE = """
<div class="charts">
<figure><figcaption>Loss over the tokens trained on</figcaption>{{ curve }}</figure>
<div class="prose">
<p>Dots are measured on validation text that is not trained on. The thin line is the training loss, each point the mean
over the steps since the one before{% if phases | length > 1 %}; a dashed rule stands between phases{% endif %}.</p>
<p>{% for phase in phases %}{% if phases | length > 1 %}Phase {{ loop.index }} keeps{% else %}Kept is{% endif %}
 the model after step {{ phase.kept_step | whole }} of {{ phase.steps | whole }}.{% if phase.merge_difference is not none %}
 Its adapters are merged; the logits differ by at most {{ phase.merge_difference | significant(2) }} from those with the
adapters apart.{% endif %} {% endfor %}</p>
</div>
</div>
<div class="scroll">
<table>
<thead><tr><th class="n">Phase</th><th>Method</th><th>Data</th><th class="n">Steps</th><th class="n">Tokens</th>
<th class="n">Trained parameters</th><th class="n">Targets/s</th><th class="n">Padding</th></tr></thead>
<tbody>
{% for phase in phases %}
<tr><td class="n">{{ loop.index }}</td><td>{{ phase.method }}</td><td class="long">{{ phase.data.source }}</td>
<td class="n">{{ phase.steps | whole }}</td>
<td class="n">{% if phase.log %}{{ phase.log[-1].tokens | whole }}{% else %}–{% endif %}</td>
<td class="n">{{ phase.trainable | count }}</td>
<td class="n">{{ phase.targets_per_second | significant }}</td>
<td class="n">{{ "%.1f" | format(100 * phase.padding) }}&nbsp;%</td></tr>
{% endfor %}
</tbody>
</table>
</div>
"""

SECTION = Section("healing", "Healing", lambda evidence: evidence.healing, compute, TEMPLATE)
