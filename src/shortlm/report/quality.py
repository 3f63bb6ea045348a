"""Quality before and after: every perplexity beside that of the dense model on the same text.

When two models read the same windows, the difference is taken window by window (paired): windows that are
hard for both cancel out, and the standard error is that of the difference, not of the two means.
"""

from __future__ import annotations

from dataclasses import dataclass

from shortlm.artifacts import Measurement, Perplexity
from shortlm.report.numbers import exp
from shortlm.report.roles import reference_of
from shortlm.statistics import independent_stderr, stderr


@dataclass(frozen=True)
class Difference:
    """Model minus dense, in nats per token; `ratio` is that of the perplexities."""

    nats: float
    stderr: float | None
    ratio: float
    paired: bool


@dataclass(frozen=True)
class Row:
    """One model on one text. `stderr` is in units of perplexity."""

    text: str
    role: str
    result: Perplexity
    stderr: float | None
    difference: Difference | None


def dense_of(measurements: list[Measurement]) -> Measurement | None:
    """The model that the others are compared with: the dense one, or the first of several."""
    first = reference_of(m.role for m in measurements)
    return next((m for m in measurements if m.role == first), None)


def dense_first(measurements: list[Measurement]) -> list[Measurement]:
    """The order in which models are shown."""
    dense = dense_of(measurements)
    return sorted(measurements, key=lambda m: m is not dense)


def cut_of(measurements: list[Measurement]) -> Measurement | None:
    """The cut model; if no one has that role, the only one beside the dense model."""
    dense = dense_of(measurements)
    others = [m for m in measurements if m is not dense]
    return next((m for m in others if m.role == "cut"), others[0] if len(others) == 1 else None)


def result_of(measurements: list[Measurement]) -> Measurement | None:
    """The model that comes out: the healed one, else the repaired one, else the cut one."""
    found = (m for role in ("healed", "repaired") for m in measurements if m.role == role)
    return next(found, cut_of(measurements))


def comparison(measurements: list[Measurement]) -> list[Row]:
    """A row per text and model: texts in the order they were first measured, the dense model first in each."""
    dense = dense_of(measurements)
    found = [(m, by_text(m)) for m in dense_first(measurements)]
    texts = dict.fromkeys(text for _, results in found for text in results)
    before = by_text(dense) if dense else {}
    return [
        Row(text, m.role, p, perplexity_error(p), _against(before.get(text), p) if m is not dense else None)
        for text in texts
        for m, results in found
        if (p := results.get(text))
    ]


def by_text(measurement: Measurement) -> dict[str, Perplexity]:
    """Perplexities by the name of their text; a second text of the same name (another seed, say) gets a number."""
    found: dict[str, Perplexity] = {}
    for p in measurement.perplexities:
        again = sum(q.text == p.text for q in found.values())
        found[f"{p.text} ({again + 1})" if again else p.text] = p
    return found


def perplexity_error(p: Perplexity) -> float | None:
    """Standard error of the perplexity, to first order."""
    return None if p.stderr_nats is None else p.perplexity * p.stderr_nats


def difference(before: Perplexity, after: Perplexity) -> Difference:
    """`after` minus `before`; paired if both read the same windows."""
    paired = _same_windows(before, after)
    nats = after.nats_per_token - before.nats_per_token
    independent = independent_stderr([before.stderr_nats, after.stderr_nats])
    return Difference(nats, _paired_error(before, after) if paired else independent, exp(nats), paired)


def incomparable(reference: Measurement, other: Measurement) -> str | None:
    """Why no perplexity of the two can be compared; None if one can, or if one of them has none."""
    before, after = by_text(reference), by_text(other)
    shared = [text for text in after if text in before]
    if not before or not after or any(_same_windows(before[text], after[text]) for text in shared):
        return None
    return f"other tokens or windows of {shared[0]}" if shared else "no text was read by both"


def trained_notes(measurements: list[Measurement]) -> list[str]:
    """A line for each text that a model was healed on and is measured on."""
    return [
        f"{m.role} was healed on {text}, so its perplexity there says nothing about other text; measure it on text "
        "that was held out"
        for m in measurements
        for text, p in by_text(m).items()
        if p.healed_on
    ]


def _against(before: Perplexity | None, after: Perplexity) -> Difference | None:
    return difference(before, after) if before else None


def _same_windows(a: Perplexity, b: Perplexity) -> bool:
    same = a.data.sha256 == b.data.sha256 and a.tokens_per_sequence == b.tokens_per_sequence
    return same and len(a.per_sequence_nats) == len(b.per_sequence_nats) == len(a.tokens_per_sequence)


def _paired_error(a: Perplexity, b: Perplexity) -> float | None:
    """Of the token-weighted mean of the windows' differences."""
    total = sum(a.tokens_per_sequence)
    if not total:
        return None
    deltas = [y - x for x, y in zip(_window_means(a), _window_means(b), strict=True)]
    return stderr(deltas, [tokens / total for tokens in a.tokens_per_sequence])


def _window_means(p: Perplexity) -> list[float]:
    """Nats per token of each window (`per_sequence_nats` holds each window's sum)."""
    return [nats / max(tokens, 1) for nats, tokens in zip(p.per_sequence_nats, p.tokens_per_sequence, strict=True)]
