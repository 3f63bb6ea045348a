"""What the models write behind the same prompts, and how much they repeat themselves."""

from __future__ import annotations

from typing import Any

from shortlm.artifacts import Fluency, Measurement
from shortlm.report.evidence import Evidence
from shortlm.report.section import Section


def compute(evidence: Evidence) -> dict[str, Any]:
    """Per prompt: a row for every draw, with what each model wrote. A prompt repeated in the text is shown once."""
    measured = evidence.measurements
    prompts = dict.fromkeys(s.prompt for m in measured for s in m.samples)
    return {
        "samples": [{"prompt": prompt, "rows": _side_by_side(prompt, measured)} for prompt in prompts],
        "fluent": _fluent(measured), "sampling": measured[0].sampling,
    }  # fmt: skip


def _side_by_side(prompt: str, measurements: list[Measurement]) -> list[list[tuple[str, str]]]:
    columns = [
        [(m.role, s.text.removeprefix(prompt).strip()) for s in m.samples if s.prompt == prompt] for m in measurements
    ]
    return [[c[i] for c in columns if i < len(c)] for i in range(max(map(len, columns)))]


def _fluent(measurements: list[Measurement]) -> list[tuple[str, Fluency]]:
    """What is known of repetition: of the text itself, then of each model's samples."""
    text = next((m.text_fluency for m in measurements if m.text_fluency), None)
    found = [(m.role, m.fluency) for m in measurements if m.fluency]
    return [("the text itself", text), *found] if text and found else found


TEMPLATE = """
{% for sample in samples %}
<div class="sample">
{% if sample.prompt %}<p class="prompt"><span class="label">Prompt</span>{{ sample.prompt.strip() }}</p>{% endif %}
{% for row in sample.rows %}
<div class="texts">
{% for role, text in row %}
<div><span class="label">{{ role }}</span><p>{{ text }}</p></div>
{% endfor %}
</div>
{% endfor %}
</div>
{% endfor %}
{% if fluent %}
<h3>Do they repeat themselves?</h3>
<div class="scroll">
<table class="narrow">
<thead><tr><th>Text of</th><th class="n">Texts</th><th class="n">Tokens</th><th class="n">Repeated 4-grams</th><th class="n">Distinct words</th>
<th class="n">Distinct pairs</th><th class="n">Distinct triples</th></tr></thead>
<tbody>
{% for role, f in fluent %}
<tr><td>{{ role }}</td><td class="n">{{ f.texts }}</td><td class="n">{{ f.tokens | whole }}</td>
<td class="n">{{ with_error(100 * f.repeated, f.repeated_stderr and 100 * f.repeated_stderr) }}&nbsp;%</td>
{% for share in f.distinct %}<td class="n">{{ "%.1f" | format(100 * share) }}&nbsp;%</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
<p class="note">By tokens, over samples of up to the same length{% if sampling %} ({{ sampling }}){% endif %}. A model that repeats itself far more than the text
is broken, even where its perplexity and its choices look fine.{% if fluent[0][1].texts < 5 %} So few texts tell little: more by --samples.{% endif %}</p>
{% endif %}
"""

SECTION = Section(
    "samples", "Text samples", lambda evidence: any(m.samples for m in evidence.measurements), compute, TEMPLATE
)
