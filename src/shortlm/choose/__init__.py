"""Choose which blocks go."""

from shortlm.choose.protect import block_list
from shortlm.choose.published import published_names, published_scores, published_source
from shortlm.choose.selection import choose, plan_by_hand

__all__ = ["block_list", "choose", "plan_by_hand", "published_names", "published_scores", "published_source"]
