"""Where everything comes from: models, texts, moments, machines, versions."""

from __future__ import annotations

from typing import Any

from shortlm.report.evidence import Evidence
from shortlm.report.origin import measured_data, model_rows, scored_data, stage_rows, version_rows
from shortlm.report.section import Section


def compute(evidence: Evidence) -> dict[str, Any]:
    """The rows of the tables."""
    stages = stage_rows(evidence)
    return {
        "models": model_rows(evidence), "data": scored_data(evidence) + measured_data(evidence), "stages": stages,
        "versions": version_rows(stages),
    }  # fmt: skip


TEMPLATE = """
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
<div class="scroll">
<table>
<thead><tr><th>Stage</th><th>When (UTC)</th><th>Machine</th><th>Device</th><th>Type</th><th class="n">Took</th></tr></thead>
<tbody>
{% for name, origin in stages %}
<tr><td>{{ name }}</td><td class="keep">{{ origin.created | replace("T", " ") | replace("+00:00", "") }}</td>
<td>{{ origin.machine }}</td><td>{{ origin.device }}</td><td>{{ origin.dtype or "–" }}</td>
<td class="n">{% if origin.seconds is none %}–{% else %}{{ origin.seconds | duration }}{% endif %}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
<p class="versions">{% for package, version in versions %}<span>{{ package }}&nbsp;{{ version }}</span>
{% endfor %}</p>
"""

SECTION = Section("provenance", "Provenance", model_rows, compute, TEMPLATE)
