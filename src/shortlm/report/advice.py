"""Which of several models to take, by a rule that is told: the fastest (or else the smallest on disk) of those whose
quality isn't told apart from the reference's, and of the others what each of them costs.

Quality is that of the trade-off charts: a mean over tasks that all have, else a task, else a perplexity.
"""

from __future__ import annotations

from shortlm.artifacts import Measurement
from shortlm.report.evidence import Evidence
from shortlm.report.numbers import significant, size
from shortlm.report.quality import comparison, dense_of
from shortlm.report.speed import main_case, speed_rows
from shortlm.report.tasks import task_rows
from shortlm.report.tradeoff import Quality, quality
from shortlm.statistics import normal_p

CLEAR = 0.05  # p below which two qualities are told apart
RULE = (
    f"The rule: of the models whose quality can't be told apart from the reference's (p above {CLEAR}), the one "
    "that is fastest on the first case, or where no speed was measured, the smallest on disk."
)


def advice(evidence: Evidence) -> str | None:
    """A sentence; None where there are no three models, or no quality that all of them have."""
    measured, reference = evidence.measurements, dense_of(evidence.measurements)
    good = quality(measured)
    if len(measured) < 3 or reference is None or good is None:
        return None
    worse = {m.role: _worse(m, evidence, good.label) for m in measured if m is not reference}
    if any(p is None for p in worse.values()):
        return f"Nothing can be told: without standard errors, differences of {good.label} can't be judged."
    equal = [m for m in measured if m is not reference and not worse[m.role]]
    if not equal:
        best = min((m for m in measured if m is not reference), key=lambda m: _rank(m, good.values, good.by_factors))
        return (
            f"All are worse than {reference.role} in {good.label}; the nearest is {best.role} "
            f"({_value(good, best.role)} beside {_value(good, reference.role)})."
        )
    gains = {m.role: _gain(m, reference, evidence) for m in equal}
    best = max(equal, key=lambda m: gains[m.role][0])
    gain, words = gains[best.role]
    if gain <= 1:
        return f"Take {reference.role}: those that are as good in {good.label} are neither faster nor smaller."
    return (
        f"Take {best.role}: {words}, and its {good.label} can't be told apart from {reference.role}'s "
        f"({_value(good, best.role)} beside {_value(good, reference.role)})."
    )


def _worse(m: Measurement, evidence: Evidence, label: str) -> bool | None:
    """Whether its quality is told apart from the reference's, to the worse; None where that can't be judged."""
    tasks = [row for row in task_rows(evidence.measurements) if row.role == m.role and row.difference]
    row = next((r for r in tasks if label in (f"{r.task} (mean of tasks)", f"{r.task}, {r.metric}")), None)
    if row is not None and row.difference is not None:
        p = row.difference.p
        return None if p is None else p < CLEAR and row.difference.value < 0
    texts = [r for r in comparison(evidence.measurements) if r.role == m.role and r.difference]
    if not texts or texts[0].difference is None or texts[0].difference.stderr is None:
        return None
    p = normal_p(texts[0].difference.nats, texts[0].difference.stderr)
    return None if p is None else p < CLEAR and texts[0].difference.nats > 0


def _rank(m: Measurement, values: dict[str, tuple[float, float | None]], lower_is_better: bool) -> float:
    return values[m.role][0] if lower_is_better else -values[m.role][0]


def _value(good: Quality, role: str) -> str:
    return significant(good.values[role][0], 4)


def _gain(m: Measurement, reference: Measurement, evidence: Evidence) -> tuple[float, str]:
    """How many times as fast it is; or where that isn't known, how many times as small."""
    case = main_case(evidence.benchmark)
    rows = {row.role: row for row in speed_rows(evidence.benchmark) if row.case == case}
    if m.role in rows and reference.role in rows:
        ratio = rows[reference.role].latency / rows[m.role].latency
        return ratio, f"it is {significant(ratio)} times as fast (batch {case.batch if case else 1})"
    ratio = reference.bytes / m.bytes if m.bytes else 0.0
    return ratio, f"it takes {size(m.bytes)} on disk instead of {size(reference.bytes)}"
