"""Peak memory and the KV cache of every case, and the largest batch and longest output that fit."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from shortlm.report.evidence import Evidence
from shortlm.report.section import Section
from shortlm.report.speed import limit_pairs, speed_rows
from shortlm.report.speed_charts import memory_chart


def needs(evidence: Evidence) -> bool:
    """A peak of one case at least."""
    return any(row.peak_bytes for row in speed_rows(evidence.benchmark))


def compute(evidence: Evidence) -> dict[str, Any]:
    """Rows of all cases, the chart of their peaks, limits."""
    bench, rows = evidence.benchmark, speed_rows(evidence.benchmark)
    peaks, models = [row for row in rows if row.peak_bytes], bench.models if bench else []
    return {
        "benchmark": bench, "rows": rows, "limits": limit_pairs(bench),
        "chart": Markup(memory_chart("memory-chart", peaks, models, evidence.palette)),
    }  # fmt: skip


TEMPLATE = """
{% set busy = rows | rejectattr("utilisation", "none") | list %}
{% set energy = rows | rejectattr("joules_per_token", "none") | list %}
<div class="charts">
<figure><figcaption>Peak memory by batch and length</figcaption>{{ chart }}</figure>
<div class="prose">
<p>The peak is the most that was alive at one time, weights included{% if not benchmark.provenance.device.startswith("cuda") %}: the bytes of all tensors, added up
operation by operation in a run that isn't timed{% endif %}{% if "compiled" in benchmark.backend %}; without torch.compile{% endif %}.</p>
<p>Each block keeps the keys and values of every token, so fewer blocks leave room for larger batches and longer texts.</p>
</div>
</div>
<div class="scroll">
<table>
<thead><tr><th class="n">Batch</th><th class="n">Prompt + output</th><th>Model</th><th class="n">Weights</th><th class="n">Peak</th><th class="n">KV cache</th>
{% if busy %}<th class="n">GPU busy</th>{% endif %}{% if energy %}<th class="n">Energy per token</th>{% endif %}</tr></thead>
<tbody>
{% for row in rows %}
{% set first = loop.changed(row.case) %}
<tr{% if first %} class="group"{% endif %}>
<td class="n{% if not first %} soft{% endif %}">{{ row.case.batch }}</td>
<td class="n{% if not first %} soft{% endif %}">{{ row.case.prompt_tokens }} + {{ row.case.output_tokens }}</td>
<td>{{ row.role }}</td>
<td class="n">{% for m in benchmark.models if m.role == row.role %}{{ m.weight_bytes | size }}{% endfor %}</td>
<td class="n">{% if row.peak_bytes is none %}–{% else %}{{ row.peak_bytes | size }}{% endif %}</td>
<td class="n">{% if row.cache_bytes is none %}–{% else %}{{ row.cache_bytes | size }}{% endif %}</td>
{% if busy %}<td class="n">{% if row.utilisation is none %}–{% else %}{{ "%.0f" | format(100 * row.utilisation) }}&nbsp;%{% endif %}</td>{% endif %}
{% if energy %}<td class="n">{% if row.joules_per_token is none %}–{% else %}{{ row.joules_per_token | significant }}&nbsp;J{% endif %}</td>{% endif %}
</tr>
{% endfor %}
</tbody>
</table>
</div>
{% if limits %}
<h3>What fits in {{ limits[0][0].budget_bytes | size }}</h3>
<div class="scroll">
<table class="narrow">
<thead><tr><th>Limit</th><th>Model</th><th class="n">Value</th><th class="n">Times the reference</th><th>Stopped by</th></tr></thead>
<tbody>
{% for limit, factor in limits %}
<tr><td>{% if limit.kind == "batch" %}Largest batch, {{ limit.prompt_tokens }} + {{ limit.output_tokens }} tokens{% else %}Longest output, batch {{ limit.batch }}, {{ limit.prompt_tokens }} tokens of prompt{% endif %}</td>
<td>{{ limit.role }}</td><td class="n">{{ limit.value | whole }}</td>
<td class="n">{% if factor %}{{ factor | significant }}{% else %}–{% endif %}</td><td>{{ limit.stopped_by }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
{% endif %}
"""

SECTION = Section("memory", "Memory", needs, compute, TEMPLATE)
