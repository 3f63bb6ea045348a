"""Where everything comes from: models, texts, moments, machines, versions."""

from __future__ import annotations

from typing import Any

from shortlm.report.evidence import Evidence
from shortlm.report.origin import measured_data, model_rows, repair_data, scored_data, stage_rows, version_rows
from shortlm.report.section import Section
from shortlm.report.steps import step_rows


def compute(evidence: Evidence) -> dict[str, Any]:
    """The rows of the tables."""
    stages, steps = stage_rows(evidence), step_rows(evidence.manifest)
    kinds = {row.step.kind for row in steps}
    return {
        "models": model_rows(evidence), "data": scored_data(evidence) + repair_data(evidence) + measured_data(evidence),
        "stages": [(name, origin) for name, origin in stages if name not in kinds], "steps": steps,
        "versions": version_rows(stages),
    }  # fmt: skip


TEMPLATE = """
{% macro came_from(origin) %}
<td class="keep">{{ origin.created | replace("T", " ") | replace("+00:00", "") }}</td>
<td class="keep">{{ origin.machine }}</td><td>{{ origin.device }}</td><td>{{ origin.dtype or "–" }}</td>
<td class="n">{% if origin.seconds is none %}–{% else %}{{ origin.seconds | duration }}{% endif %}</td>
{% endmacro %}
<div class="scroll">
<table>
<thead><tr><th>Model</th><th>Name</th><th>Revision</th><th>Architecture</th><th class="n">Blocks</th>
<th class="n">Parameters</th></tr></thead>
<tbody>
{% for role, model in models %}
<tr><td>{{ role }}</td><td class="long">{{ model.name }}</td><td class="long">{{ model.revision or "–" }}</td>
<td>{{ model.architecture }}</td><td class="n">{{ model.n_blocks }}</td><td class="n">{{ model.parameters | count }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
{% if data %}
<div class="scroll">
<table>
<thead><tr><th>Text for</th><th>Source</th><th class="n">Windows</th><th class="n">Tokens</th><th>BOS</th>
<th class="n">Seed</th><th>SHA-256 of the ids</th></tr></thead>
<tbody>
{% for use, facts in data %}
<tr><td>{{ use }}</td><td class="long">{{ facts.source }}</td><td class="n">{{ facts.sequences }}</td>
<td class="n">{{ facts.tokens | whole }}</td><td>{{ facts.bos }}</td>
<td class="n">{{ "–" if facts.seed is none else facts.seed }}</td><td class="hash"><code>{{ facts.sha256 }}</code></td></tr>
{% endfor %}
</tbody>
</table>
</div>
{% endif %}
{% if steps %}
<div class="scroll">
<table>
<thead><tr><th class="n">Step</th><th>What it did <span class="soft">(original indices)</span></th><th class="n">Weights before</th><th class="n">After</th>
<th>When (UTC)</th><th>Machine</th><th>Device</th><th>Type</th><th class="n">Took</th></tr></thead>
<tbody>
{% for row in steps %}
{% set origin = row.step.provenance %}
<tr><td class="n">{{ row.number }}</td><td class="what">{{ row.what }}</td><td class="n">{{ row.step.bytes_before | size }}</td>
<td class="n">{{ row.step.bytes_after | size }}</td>{{ came_from(origin) }}</tr>
{% endfor %}
</tbody>
</table>
</div>
{% endif %}
{% if stages %}
<div class="scroll">
<table>
<thead><tr><th>Stage</th><th>When (UTC)</th><th>Machine</th><th>Device</th><th>Type</th><th class="n">Took</th></tr></thead>
<tbody>
{% for name, origin in stages %}
<tr><td>{{ name }}</td>{{ came_from(origin) }}</tr>
{% endfor %}
</tbody>
</table>
</div>
{% endif %}
<p class="versions">{% for package, version in versions %}<span>{{ package }}&nbsp;{{ version }}</span>
{% endfor %}</p>
"""

SECTION = Section("provenance", "Provenance", lambda known: model_rows(known) or known.manifest, compute, TEMPLATE)
