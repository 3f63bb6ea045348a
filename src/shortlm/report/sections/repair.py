"""Repair without training: how near the states came to the dense model's, and what that did to the loss."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from shortlm.report.evidence import Evidence
from shortlm.report.repair import changed, fold_rows, nats, repair_of, won_back
from shortlm.report.repair_chart import depth_chart, loss_lanes
from shortlm.report.section import Section

FEW = 12  # weights that are shown without a click


def compute(evidence: Evidence) -> dict[str, Any]:
    """Both charts, the losses, a row for every weight."""
    step = repair_of(evidence)
    if step is None:
        return {}
    rows, palette = fold_rows(step), evidence.palette
    return {
        "step": step, "rows": rows, "folded": len(rows) > FEW, "changed": len(changed(step)), "losses": nats(step.loss),
        "depths": Markup(depth_chart("repair-depth", step, palette)) if step.depths else None,
        "lanes": Markup(loss_lanes("repair-loss", step, palette)), "won": won_back(step.loss),
        "fitted": max(step.data.sequences - step.validation, 0),
    }  # fmt: skip


TEMPLATE = """
{% if not step.delivered %}
<p class="warning"><b>Not taken.</b> The repair made the loss worse, so the weights are the cut model's.</p>
{% endif %}
<div class="charts">
{% if depths %}
<figure><figcaption>Error of the state, block by block</figcaption>{{ depths }}
<p class="note">Squared distance to the dense model's state at the same place, as a share of that state's squared size. No error,
no dot.</p></figure>
{% endif %}
<div>
<figure><figcaption>Loss in validation</figcaption>{{ lanes }}
<p class="note">± and the whisker are one standard error of repaired − cut, window by window. Ridges were chosen on the same windows.</p></figure>
<dl class="facts">
<div><dt>Change</dt><dd>{{ signed_error(step.loss.repaired - step.loss.cut, step.loss.stderr) }} nats per token
{% if won %}<span class="soft">({{ won | typeset }} of the lost nats won back)</span>{% endif %}</dd></div>
<div><dt>Method</dt><dd><code>{{ step.method }}</code>, without training</dd></div>
<div><dt>Against</dt><dd>{{ step.against.name }}, {{ step.against.n_blocks }} blocks</dd></div>
<div><dt>Fitted on</dt><dd>{{ fitted | whole }} windows of {{ step.data.source }}</dd></div>
<div><dt>Validated on</dt><dd>{{ step.validation | whole }} other windows, {{ step.loss.tokens | whole }} tokens</dd></div>
</dl>
</div>
</div>
{% macro table() %}
<div class="scroll">
<table class="narrow">
<thead><tr><th class="n">Block</th><th>Part</th><th class="n">Ridge or factor</th><th class="n">Unknowns</th><th class="n">Tokens</th>
<th class="n">Error before</th><th class="n">Error after</th></tr></thead>
<tbody>
{% for row in rows %}
{% set fold = row.fold %}
<tr><td class="n">{{ row.block }}</td><td>{{ row.part }}</td>
<td class="n">{% if fold.factor is not none %}×&nbsp;{{ fold.factor | significant(4) }}{% elif fold.ridge is not none %}{{ "%g" | format(fold.ridge) }}{% else %}<span class="soft">unchanged</span>{% endif %}</td>
<td class="n">{{ fold.unknowns | whole }}</td><td class="n">{{ fold.tokens | whole }}</td>
<td class="n">{{ fold.error_before | significant }}</td><td class="n">{{ fold.error_after | significant }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
{% endmacro %}
{% if rows %}
{% if folded %}
<details><summary>{{ rows | length }} weights, {% if step.delivered %}{{ changed }} of them changed{% else %}not taken{% endif %}</summary>{{ table() }}</details>
{% else %}
{{ table() }}
{% endif %}
<p class="note">Solved for one after the other (original indices); each finds the error that those before it have left. A ridge is a share of the
mean diagonal; the best in validation was taken, or no change at all.</p>
{% endif %}
"""

SECTION = Section("repair", "Repair without training", repair_of, compute, TEMPLATE)
