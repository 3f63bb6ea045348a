"""Choose which blocks go."""

from shortlm.choose.feasible import refuse_infeasible
from shortlm.choose.published import published_names, published_scores, published_source
from shortlm.choose.selection import choose
from shortlm.plans import plan_by_hand
from shortlm.units import unit_list

__all__ = [
    "choose", "plan_by_hand", "published_names", "published_scores", "published_source", "refuse_infeasible",
    "unit_list",
]  # fmt: skip
