"""Latency and throughput of every case, where the time of a decoding step goes, and what was too noisy to tell."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from shortlm.report.evidence import Evidence
from shortlm.report.section import Section
from shortlm.report.speed import SpeedRow, bench_notes, noise_warnings, shares, speed_rows, types_of
from shortlm.report.speed_charts import step_chart, throughput_chart


def compute(evidence: Evidence) -> dict[str, Any]:
    """Rows of all cases, charts by length of the output, parts of a step, notes."""
    bench, palette, rows = evidence.benchmark, evidence.palette, speed_rows(evidence.benchmark)
    parts = shares(bench)
    return {
        "benchmark": bench, "types": types_of(bench) if bench else "", "rows": rows,
        "notes": bench_notes(bench), "warnings": noise_warnings(bench),
        "throughput": _by_length(rows, palette), "shares": parts,
        "step": Markup(step_chart("step", parts, palette)) if parts else None,
    }  # fmt: skip


def _by_length(rows: list[SpeedRow], palette: dict[str, str]) -> list[tuple[str, Markup]]:
    """A chart for each length of prompt and output, with its name."""
    curves: dict[tuple[int, int], list[SpeedRow]] = {}
    for row in rows:
        curves.setdefault((row.case.prompt_tokens, row.case.output_tokens), []).append(row)
    return [
        (f"{prompt} tokens of prompt, {output or 'no'} of output",
         Markup(throughput_chart(f"throughput-{i}", curve, palette)))
        for i, ((prompt, output), curve) in enumerate(curves.items())
    ]  # fmt: skip


TEMPLATE = """
{% if not rows %}
<p class="warning"><b>No case was measured.</b>{% for cell in benchmark.cells if cell.failed %} {{ cell.role }}, batch {{ cell.batch }}, {{ cell.prompt_tokens }} + {{ cell.output_tokens }} tokens: {{ cell.failed }}.{% endfor %}</p>
{% for note in notes %}
<p class="warning"><b>Note.</b> {{ note }}.</p>
{% endfor %}
{% else %}
<p>{{ benchmark.device }}, {{ benchmark.backend }}, {{ types }}; {{ benchmark.sampling }}.
{% if benchmark.models | length > 1 %}{% if benchmark.interleaved %}All models took turns in every round, so that the machine's drift falls on all alike.
{% else %}The models ran one after the other{% if benchmark.backend != "vllm" %}, since they did not fit in memory together{% endif %}.{% endif %}{% endif %}</p>
{% for note in notes %}
<p class="warning"><b>Note.</b> {{ note }}.</p>
{% endfor %}
{% for warning in warnings %}
<p class="warning"><b>Noisy.</b> {{ warning }}.</p>
{% endfor %}
<div class="charts">
{% for name, chart in throughput %}
<figure><figcaption>Throughput and latency by batch, {{ name }}</figcaption>{{ chart }}</figure>
{% endfor %}
{% if step %}
<figure><figcaption>A decoding step, batch {{ shares[0].breakdown.batch }}</figcaption>{{ step }}
{% for share in shares if share.ideal %}
<p class="note">{{ share.breakdown.role }}: {{ share.speedup | significant }} times as fast. With {{ share.blocks }} blocks instead of {{ shares[0].blocks }}, {{ share.ideal | significant }} times
would be expected if the blocks' time changed in proportion and nothing else changed; the blocks alone reach {{ "%.0f" | format(100 * share.of_ideal_blocks) }}&nbsp;% of their proportion.</p>
{% endfor %}
</figure>
{% endif %}
</div>
<div class="scroll">
<table>
<thead><tr><th class="n">Batch</th><th class="n">Prompt + output</th><th>Model</th><th class="n">Latency</th><th class="n wide">Quartiles</th><th class="n">First token</th>
<th class="n">Per token</th><th class="n">Tokens/s</th><th class="n">Times as fast</th></tr></thead>
<tbody>
{% for row in rows %}
{% set first = loop.changed(row.case) %}
<tr{% if first %} class="group"{% endif %}>
<td class="n{% if not first %} soft{% endif %}">{{ row.case.batch }}</td>
<td class="n{% if not first %} soft{% endif %}">{{ row.case.prompt_tokens }} + {{ row.case.output_tokens }}</td>
<td>{{ row.role }}</td>
<td class="n">{{ row.latency | duration }}</td>
<td class="n wide">{{ row.quartiles[0] | duration }} to {{ row.quartiles[1] | duration }}</td>
<td class="n">{% if row.first_token is none %}–{% else %}{{ row.first_token | duration }}{% endif %}</td>
<td class="n">{% if row.per_token is none %}–{% else %}{{ row.per_token | duration }}{% endif %}</td>
<td class="n">{{ row.tokens_per_second | significant }}</td>
<td class="n">{% if row.ratio %}{{ row.ratio.value | significant }} <span class="soft">({{ row.ratio.low | significant }} to {{ row.ratio.high | significant }})</span>{% else %}–{% endif %}</td>
</tr>
{% endfor %}
</tbody>
</table>
</div>
<p class="note">Medians of {{ rows | map(attribute="runs") | unique | join(" or ") }} runs. Times as fast: the median over the rounds of the reference's time over the model's, with its
95&nbsp;% interval.{% for cell in benchmark.cells if cell.failed %} {{ cell.role }}, batch {{ cell.batch }}, {{ cell.prompt_tokens }} + {{ cell.output_tokens }} tokens: {{ cell.failed }}.{% endfor %}</p>
{% endif %}
"""

SECTION = Section("speed", "Speed", lambda evidence: evidence.benchmark, compute, TEMPLATE)
