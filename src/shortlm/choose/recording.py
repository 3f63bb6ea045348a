"""What a search tells in its plan: the trails, with the loss of every best set on text that no search saw.

Shapes: S sequences.
"""

from __future__ import annotations

from shortlm.artifacts import Found, Search, Trail, Tried
from shortlm.choose.certainty import certainty
from shortlm.choose.first_order import compared
from shortlm.choose.trials import TrailOf, Trials, paired_stderr
from shortlm.sweep import Evaluator
from shortlm.units import Mask

MOST_TOLD = 1000  # of all sets that were tried, the best ones
AT_MOST = 200  # steps of a trail that are told; of more, some are left out


def recorded(trials: Trials, chosen: Mask, held_out: Evaluator | None, resamples: int) -> Search:
    """The search as the plan holds it. `held_out` has the text that was not searched on."""
    if trials.evaluator.sequences < 2:
        trials.notes.append("one sequence: how sure the choice is, and what other text would choose, can't be told")
    trails = [_thinned(trail) for trail in trials.trails if trail.steps]
    masks = list(dict.fromkeys(step.mask for trail in trails for step in trail.steps))
    spent = trials.evaluator.search()
    unseen = _HeldOut(held_out, masks) if held_out else None
    known = {mask for mask in masks if trials.knows(mask)}
    made = [
        Trail(
            name=trail.name, block_forwards=round(trail.forwards),
            found=[_found(trials, step.mask, step.forwards, unseen) for step in trail.steps if step.mask in known],
        )
        for trail in trails
    ]  # fmt: skip
    return spent.model_copy(
        update={
            "tried": _best_tried(spent.tried), "trails": made, "spared": trials.spared,
            "certainty": certainty(trials, chosen, resamples),
            "estimate": compared(trials, trials.estimates), "notes": trials.notes,
            "held_out": held_out.windows.facts if held_out else None,
            "held_out_base_nats": held_out.base_nats if held_out else None,
        }
    )  # fmt: skip


def _best_tried(tried: list[Tried]) -> list[Tried]:
    """All, or of very many the best of those that were tried on most sequences."""
    if len(tried) <= MOST_TOLD:
        return tried
    return sorted(tried, key=lambda entry: (-entry.sequences, entry.nats))[:MOST_TOLD]


class _HeldOut:
    """Cross-entropies on the held-out text."""

    def __init__(self, evaluator: Evaluator, masks: list[Mask]):
        losses = evaluator.losses(masks)
        self.shares_S, self.base_S = evaluator.shares_S, losses.base_S
        self.nats = dict(zip(masks, losses.nats_MS, strict=True))

    def told(self, mask: Mask) -> dict[str, float | None]:
        """The fields of a Found."""
        error = paired_stderr(self.nats[mask] - self.base_S, self.shares_S)
        return {
            "held_out_nats": float(self.nats[mask] @ self.shares_S),
            "held_out_stderr": error if error != float("inf") else None,
        }


def _found(trials: Trials, mask: Mask, forwards: float, unseen: _HeldOut | None) -> Found:
    error = trials.stderr(mask)
    told = unseen.told(mask) if unseen else {}
    return Found(
        units=sorted(mask), nats=trials.loss(mask), stderr=error if error != float("inf") else None,
        block_forwards=round(forwards), **told,
    )  # fmt: skip


def _thinned(trail: TrailOf) -> TrailOf:
    count = len(trail.steps)
    if count <= AT_MOST:
        return trail
    kept = [trail.steps[(count - 1) * k // (AT_MOST - 1)] for k in range(AT_MOST)]
    return TrailOf(trail.name, kept, trail.forwards)
