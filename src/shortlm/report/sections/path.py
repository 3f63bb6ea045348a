"""The path of the search that chose: every set that was best at some step, on the text of the search and held out."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from markupsafe import Markup

from shortlm.report.evidence import Evidence
from shortlm.report.search import CROSS_ENTROPY, Step, Way, search_of, ways
from shortlm.report.search_charts import path_chart
from shortlm.report.search_words import objective
from shortlm.report.section import Section
from shortlm.report.units import units_text
from shortlm.units import Unit

MOST = 24  # steps in the table; the chart has all


def needs(evidence: Evidence) -> bool:
    """A way with two steps."""
    return search_of(evidence) is not None and _walked(evidence) is not None


def compute(evidence: Evidence) -> dict[str, Any]:
    """The chart and a row per step of the last way that has several."""
    way, search = _walked(evidence), search_of(evidence)
    if way is None or search is None:
        return {}
    rows = list(zip(range(1, len(way.steps) + 1), _moves(way.steps), way.steps, strict=True))
    return {
        "way": way, "rows": rows[-MOST:], "before": len(rows[:-MOST]), "chart": Markup(path_chart("path-chart", way.steps, "loss")),
        "objective": objective(search), "same_text": search.objective == CROSS_ENTROPY,
        "held_out": any(step.held_out for step in way.steps),
    }  # fmt: skip


def _walked(evidence: Evidence) -> Way | None:
    found = ways(evidence.plan) if evidence.plan else []
    return next((way for way in reversed(found) if len(way.steps) > 1), None)


def _moves(steps: list[Step]) -> list[str]:
    """How each set differs from the one before it."""
    sets = [[], *(step.found.units for step in steps)]
    return [_move(before, after) for before, after in pairwise(sets)]


def _move(before: list[Unit], after: list[Unit]) -> str:
    new, back = [u for u in after if u not in before], [u for u in before if u not in after]
    words = [f"+ {units_text(new)}"] * bool(new) + [f"− {units_text(back)}"] * bool(back)
    return ", ".join(words) or "the same"


TEMPLATE = """
<div class="charts">
<figure><figcaption>{{ way.name }}, step by step</figcaption>{{ chart }}</figure>
<div class="prose">
<p>Each step is the best set so far, in nats per token above the whole model{% if not same_text %} (on the text of the search: {{ objective }}){% endif %}.</p>
{% if held_out %}
<p>Held-out text had no part in the choice. A search that was given too little text fits its sets to that text: its own line
gets better where the held-out one does not.</p>
{% else %}
<p>Nothing was held out, so these losses flatter the sets that were chosen by them.</p>
{% endif %}
</div>
</div>
<div class="scroll">
<table class="narrow">
<thead><tr><th class="n">Step</th><th>Change</th><th class="n">Search text</th>{% if held_out %}<th class="n">Held-out text</th>{% endif %}<th class="n wide">Block forwards</th></tr></thead>
<tbody>
{% for number, move, step in rows %}
<tr><td class="n">{{ number }}</td><td>{{ move }}</td><td class="n">{{ signed_error(*step.seen) }}</td>
{% if held_out %}<td class="n">{% if step.held_out %}{{ signed_error(*step.held_out) }}{% else %}–{% endif %}</td>{% endif %}
<td class="n wide">{{ step.found.block_forwards | whole }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
<p class="note">Change: what is left out (+) or put back (−) since the step before. ± is one standard error of the difference to the whole model.
{%- if before %} The first {{ before }} steps are in the chart only.{% endif %}</p>
"""

SECTION = Section("path", "Path of the search", needs, compute, TEMPLATE)
