"""The written model against the original in which the same is left out."""

from __future__ import annotations

from shortlm.artifacts import RepairStep, WidthStep
from shortlm.report.evidence import Evidence
from shortlm.report.repair import repair_of
from shortlm.report.section import Section

TEMPLATE = """
{% set holds = equivalence.max_abs_difference <= equivalence.tolerance and (equivalence.max_abs_difference_cached is none or equivalence.max_abs_difference_cached <= (equivalence.tolerance_cached or equivalence.tolerance)) %}
<p><b class="{{ 'good' if holds else 'bad' }}">{{ "It holds." if holds else "It does not hold." }}</b>
The written model was loaded again{% if repaired %} (before its repair){% endif %} and its logits compared with those of the original in which the same {{ what }}: {{ equivalence.tokens | whole }} tokens, computed in {{ equivalence.dtype }}.</p>
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


def left_out(evidence: Evidence) -> str:
    """What was left out of the original by the last step that leaves something out."""
    steps = evidence.manifest.steps if evidence.manifest else []
    last = next((step for step in reversed(steps) if not isinstance(step, RepairStep)), None)
    return "heads and channels are masked" if isinstance(last, WidthStep) else "blocks are bypassed"


SECTION = Section(
    "equivalence",
    "Equivalence check",
    lambda evidence: evidence.equivalence,
    lambda evidence: {"equivalence": evidence.equivalence, "repaired": repair_of(evidence), "what": left_out(evidence)},
    TEMPLATE,
)
