"""Several models in one table: what was done to each, how good, how fast and how large it is; and which one to take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shortlm.artifacts import Measurement
from shortlm.report.advice import RULE, advice
from shortlm.report.evidence import Evidence
from shortlm.report.loads import loads_in
from shortlm.report.markdown import public
from shortlm.report.quality import comparison
from shortlm.report.section import Section
from shortlm.report.speed import main_case, speed_rows
from shortlm.report.steps import step_rows
from shortlm.report.tradeoff import quality


@dataclass(frozen=True)
class ModelLine:
    """A row of the table."""

    role: str
    measured: Measurement
    done: list[str]
    healed: str
    loads: str
    perplexity: Any  # a Row of the first text
    quality: tuple[float, float | None] | None
    speed: Any  # a SpeedRow of the first case

    @property
    def bits(self) -> float:
        """On disk, for each parameter."""
        return 8 * self.measured.bytes / self.measured.model.parameters


def needs(evidence: Evidence) -> bool:
    """Three models or more: two have the figures at the top."""
    return len(evidence.measurements) > 2


def compute(evidence: Evidence) -> dict[str, Any]:
    """A line for each model."""
    case, good = main_case(evidence.benchmark), quality(evidence.measurements)
    speeds = {row.role: row for row in speed_rows(evidence.benchmark) if row.case == case}
    texts = comparison(evidence.measurements)
    first = texts[0].text if texts else ""
    perplexities = {row.role: row for row in texts if row.text == first}
    lines = [
        ModelLine(
            m.role, m, _done(m, evidence), _healed(m, evidence), _loads(m, evidence), perplexities.get(m.role),
            good.values.get(m.role) if good and not good.by_factors else None, speeds.get(m.role),
        )
        for m in evidence.measurements
    ]  # fmt: skip
    return {
        "lines": lines, "text": first, "case": case, "advice": advice(evidence), "rule": RULE,
        "label": good.label if good and not good.by_factors else "",
    }  # fmt: skip


def _done(m: Measurement, evidence: Evidence) -> list[str]:
    history = evidence.histories.get(m.role)
    return [row.what for row in step_rows(history.manifest)] if history else []


def _loads(m: Measurement, evidence: Evidence) -> str:
    history = evidence.histories.get(m.role)
    return loads_in(history.manifest if history else None)


def _healed(m: Measurement, evidence: Evidence) -> str:
    history = evidence.histories.get(m.role)
    if not (history and history.healing):
        return ""
    return "; then ".join(f"{p.method} on {public(p.data.source)}, {p.steps:,} steps" for p in history.healing.phases)


TEMPLATE = """
{% if advice %}
<p><b>{{ advice }}</b></p>
<p class="note">{{ rule }}</p>
{% endif %}
<div class="scroll"><table>
<thead><tr><th>Model</th><th class="n">Blocks</th><th class="n">Parameters</th><th class="n">On disk</th>
<th class="n">Bits</th>{% if text %}<th class="n">Perplexity, {{ text }}</th>{% endif %}{% if label %}<th class="n">{{ label }}</th>{% endif %}
{% if case %}<th class="n">Tokens/s, batch {{ case.batch }}</th><th class="n">Peak memory</th>{% endif %}</tr></thead>
<tbody>
{% for line in lines %}
<tr><td>{{ line.role }}</td><td class="n">{{ line.measured.model.n_blocks }}</td>
<td class="n">{{ line.measured.model.parameters | count }}</td>
<td class="n">{% if line.measured.bytes %}{{ line.measured.bytes | size }}{% else %}–{% endif %}</td>
<td class="n">{% if line.measured.bytes %}{{ line.bits | significant }}{% else %}–{% endif %}</td>
{% if text %}<td class="n">{% if line.perplexity %}{{ with_error(line.perplexity.result.perplexity, line.perplexity.stderr) }}{% else %}–{% endif %}</td>{% endif %}
{% if label %}<td class="n">{% if line.quality %}{{ with_error(line.quality[0], line.quality[1]) }}{% else %}–{% endif %}</td>{% endif %}
{% if case %}<td class="n">{% if line.speed %}{{ line.speed.tokens_per_second | significant }}{% else %}–{% endif %}</td>
<td class="n">{% if line.speed and line.speed.peak_bytes is not none %}{{ line.speed.peak_bytes | size }}{% else %}–{% endif %}</td>{% endif %}</tr>
{% if line.done or line.healed %}
<tr><td></td><td class="note" colspan="{{ 4 + (2 if case else 0) + (1 if text else 0) + (1 if label else 0) }}">{% for what in line.done %}{{ what }}. {% endfor %}{% if line.healed %}Healed: {{ line.healed }}. {% endif %}Loads in {{ line.loads }}.</td></tr>
{% endif %}
{% endfor %}
</tbody></table></div>
"""

SECTION = Section("models", "The models", needs, compute, TEMPLATE)
