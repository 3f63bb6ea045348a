"""Choose which units go: from scores, or by asking the model."""

from shortlm.choose.budget import BUDGETS
from shortlm.choose.costs import cache_cost
from shortlm.choose.feasible import refuse_infeasible
from shortlm.choose.methods import ASKING, READING, asks, compares_after_repair
from shortlm.choose.published import published_names, published_scores, published_source
from shortlm.choose.race import race_scores, refuse_unraceable
from shortlm.choose.searching import search
from shortlm.choose.selection import choose
from shortlm.plans import plan_by_hand
from shortlm.units import unit_list

__all__ = [
    "ASKING", "BUDGETS", "READING", "asks", "cache_cost", "choose", "compares_after_repair", "plan_by_hand",
    "published_names", "published_scores", "published_source",
    "race_scores", "refuse_infeasible", "refuse_unraceable", "search", "unit_list",
]  # fmt: skip
