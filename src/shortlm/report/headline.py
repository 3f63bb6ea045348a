"""What came out, in one sentence and a handful of figures, each computed from the artifacts."""

from __future__ import annotations

from typing import NamedTuple

from shortlm.artifacts import BlockScores, CutPlan, Manifest, Measurement
from shortlm.report.numbers import change, count, significant, size, typeset
from shortlm.report.quality import Row, comparison, cut_of, dense_of, result_of


class Figure(NamedTuple):
    """A key figure: what, before, after, and a note under it. `after` may be all there is."""

    name: str
    before: str
    after: str
    note: str


def headline(scores: BlockScores | None, plan: CutPlan | None, measurements: list[Measurement]) -> str:
    """For example: 4 of 12 blocks removed: 1.77 M → 1.18 M parameters (−33 %), perplexity 3.02 → 3.55 on embedded."""
    quality = _quality(measurements)
    if plan:
        text = f"{_removed(plan)}: {_parameters(plan)}{', ' + quality if quality else ''}"
    elif quality:
        text = quality[0].upper() + quality[1:]
    elif scores:
        count_of = len(scores.criteria)
        by = f"{count_of} criteria" if count_of > 1 else f"the criterion {next(iter(scores.criteria))}"
        text = f"{scores.model.n_blocks} blocks of {scores.model.name} scored by {by}"
    else:
        return "Nothing was measured."
    return f"{text}."


def key_figures(plan: CutPlan | None, manifest: Manifest | None, measurements: list[Measurement]) -> list[Figure]:
    """Blocks, parameters, bytes and perplexity before and after, as far as they are known."""
    found = []
    if plan:
        blocks, kept = plan.model.n_blocks, plan.model.n_blocks - len(plan.removed)
        found.append(_figure("Blocks", blocks, kept, str))
        found.append(_figure("Parameters", plan.model.parameters, plan.parameters_after, count))
    if manifest:
        found.append(_figure("Weights on disk", manifest.bytes_before, manifest.bytes_after, size))
    pair = _pair(measurements)
    if pair:
        before, after = (row.result.perplexity for row in pair)
        note = f"× {significant(after / before, 4)} on {pair[1].text}"
        note += _before_healing(measurements, pair)
        found.append(Figure("Perplexity", significant(before), significant(after), note))
    return found


def _before_healing(measurements: list[Measurement], pair: tuple[Row, Row]) -> str:
    """What the cut cost, and how much of it healing won back."""
    dense, cut = dense_of(measurements), cut_of(measurements)
    hurt = _both(dense, cut) if dense and cut and pair[1].role == "healed" else None
    if not hurt or not hurt[1].difference or not pair[1].difference or hurt[1].difference.nats <= 0:
        return ""
    won = 1 - pair[1].difference.nats / hurt[1].difference.nats
    return f"; {significant(hurt[1].result.perplexity)} after the cut, {won:.0%} of the lost nats won back by healing"


def _removed(plan: CutPlan) -> str:
    total = plan.model.n_blocks
    return f"{len(plan.removed)} of {total} block{'s' if total != 1 else ''} removed"


def _parameters(plan: CutPlan) -> str:
    before, after = plan.model.parameters, plan.parameters_after
    difference = change(before, after)
    return typeset(count(before)) + f" → {typeset(count(after))} parameters ({typeset(difference)})"


def _quality(measurements: list[Measurement]) -> str:
    pair = _pair(measurements)
    if not pair:
        return ""
    before, after = (significant(row.result.perplexity) for row in pair)
    return f"perplexity {before} → {after} on {pair[1].text}"


def _pair(measurements: list[Measurement]) -> tuple[Row, Row] | None:
    """The dense model and the one that comes out, on the first text that both have read."""
    dense, result = dense_of(measurements), result_of(measurements)
    return _both(dense, result) if dense and result else None


def _both(dense: Measurement, other: Measurement) -> tuple[Row, Row] | None:
    rows = comparison([dense, other])
    return next(((a, b) for b in rows if b.difference for a in rows if a.role == "dense" and a.text == b.text), None)


def _figure(name: str, before: float, after: float, shown) -> Figure:
    return Figure(name, typeset(shown(before)), typeset(shown(after)), typeset(change(before, after)))
