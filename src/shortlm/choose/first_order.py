"""The first-order estimate of what every unit costs: one forward and one backward sweep for all of them.

The loss increase predicted for leaving a unit out is the gradient of the loss behind its block times the change of the
state there: <dLoss/dh_{i+1}, block without the unit (h_i) - h_{i+1}>. It is exact within the block.
"""

from __future__ import annotations

from shortlm.artifacts import Estimate
from shortlm.choose.trials import Trials
from shortlm.statistics import kendall_tau
from shortlm.units import Unit


def estimated(trials: Trials) -> dict[Unit, float]:
    """Nats per token, for every unit that may go."""
    units = trials.question.free
    return dict(zip(units, trials.evaluator.first_order(units), strict=True))


def compared(trials: Trials, estimates: dict[Unit, float]) -> Estimate | None:
    """Beside the true losses of the units that were tried alone; None if fewer than two were."""
    masks = {unit: frozenset({unit}) for unit in estimates}
    units = [unit for unit, mask in masks.items() if trials.knows(mask)]
    if len(units) < 2:
        return None
    base = trials.loss(frozenset())
    guess, truth = [estimates[unit] for unit in units], [trials.loss(masks[unit]) - base for unit in units]
    return Estimate(units=units, estimated=guess, measured=truth, rank_correlation=kendall_tau(guess, truth) or 0.0)
