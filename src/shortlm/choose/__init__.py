"""Choose which blocks go."""

from shortlm.blocks import block_list, plan_by_hand
from shortlm.choose.feasible import refuse_infeasible
from shortlm.choose.published import published_names, published_scores, published_source
from shortlm.choose.selection import choose

__all__ = [
    "block_list", "choose", "plan_by_hand", "published_names", "published_scores", "published_source",
    "refuse_infeasible",
]  # fmt: skip
