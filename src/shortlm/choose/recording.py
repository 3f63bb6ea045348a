"""What a search tells in its plan: the trails, with the loss of every best set on text that no search saw.

Shapes: S sequences.
"""

from __future__ import annotations

from shortlm.artifacts import Found, Search, Trail
from shortlm.choose.certainty import certainty
from shortlm.choose.first_order import compared
from shortlm.choose.trials import TrailOf, Trials, paired_stderr
from shortlm.sweep import Evaluator
from shortlm.units import Mask

AT_MOST = 200  # steps of a trail that are told; of more, some are left out


def recorded(trials: Trials, chosen: Mask, held_out: Evaluator | None, resamples: int) -> Search:
    """The search as the plan holds it. `held_out` has the text that was not searched on."""
    trails = [_thinned(trail) for trail in trials.trails if trail.steps]
    spent, masks = trials.evaluator.search(), list(dict.fromkeys(step.mask for t in trails for step in t.steps))
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
            "trails": made, "spared": trials.spared, "certainty": certainty(trials, chosen, resamples),
            "estimate": compared(trials, trials.estimates), "notes": trials.notes,
            "held_out": held_out.windows.facts if held_out else None,
            "held_out_base_nats": held_out.base_nats if held_out else None,
        }
    )  # fmt: skip


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
