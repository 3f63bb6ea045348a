"""How sure a choice is: what other text of the same kind might have chosen, by bootstrap over the sequences.

Shapes: M sets, S sequences, R resamples.
"""

from __future__ import annotations

import torch

from shortlm.artifacts import Certainty
from shortlm.choose.trials import Trials
from shortlm.statistics import resampled
from shortlm.units import Mask

MOST_SETS = 500  # the best ones: others win no resample


def certainty(trials: Trials, chosen: Mask, resamples: int) -> Certainty | None:
    """Among all sets that meet the budget and were tried; None for one sequence, or a set that was not itself tried."""
    known = sorted((m for m in trials.known if trials.question.met(m) and m != chosen), key=trials.loss)[:MOST_SETS]
    if trials.evaluator.sequences < 2 or not resamples or not trials.knows(chosen):
        return None
    sets = [chosen, *known]
    shares_S = trials.shares_S
    nats_MS = torch.stack([trials.nats_of(mask) for mask in sets]) * (shares_S * len(shares_S))
    means_RM = resampled(nats_MS, torch.full_like(shares_S, 1 / len(shares_S)), resamples, seed=0)
    best_R = means_RM.argmin(1)
    regret_R = means_RM[:, 0] - means_RM.min(1).values
    overlaps = torch.tensor([len(chosen & mask) / len(chosen) for mask in sets], dtype=torch.float64)
    return Certainty(
        resamples=resamples, sets=len(sets), same=float((best_R == 0).double().mean()),
        overlap=float(overlaps[best_R].mean()), regret=float(regret_R.mean()),
        regret_95=float(torch.quantile(regret_R, 0.95)),
    )  # fmt: skip
