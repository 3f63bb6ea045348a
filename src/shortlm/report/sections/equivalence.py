"""The written model against the original with the same blocks bypassed."""

from __future__ import annotations

from shortlm.report.repair import repair_of
from shortlm.report.section import Section

TEMPLATE = """
{% set holds = equivalence.max_abs_difference <= equivalence.tolerance and (equivalence.max_abs_difference_cached is none or equivalence.max_abs_difference_cached <= (equivalence.tolerance_cached or equivalence.tolerance)) %}
<p><b class="{{ 'good' if holds else 'bad' }}">{{ "The cut holds." if holds else "The cut does not hold." }}</b>
The written model was loaded again{% if repaired %} (before its repair){% endif %} and its logits compared with those of the original in which the same blocks are
bypassed: {{ equivalence.tokens | whole }} tokens, computed in {{ equivalence.dtype }}.</p>
<div class="scroll">
<table class="narrow">
<thead><tr><th>Largest absolute difference of a logit</th><th class="n">Measured</th><th class="n">Allowed</th></tr></thead>
<tbody>
<tr><td>Whole text at once</td><td class="n">{{ equivalence.max_abs_difference | significant(2) }}</td>
<td class="n">{{ equivalence.tolerance | significant(2) }}</td></tr>
{% if equivalence.max_abs_difference_cached is not none %}
<tr><td>Token by token, with the KV cache</td><td class="n">{{ equivalence.max_abs_difference_cached | significant(2) }}</td>
<td class="n">{{ (equivalence.tolerance_cached or equivalence.tolerance) | significant(2) }}</td></tr>
{% endif %}
</tbody>
</table>
</div>
"""

SECTION = Section(
    "equivalence",
    "Equivalence check",
    lambda evidence: evidence.equivalence,
    lambda evidence: {"equivalence": evidence.equivalence, "repaired": repair_of(evidence)},
    TEMPLATE,
)
