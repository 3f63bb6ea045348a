"""Width pruning: fewer heads and channels in every block, as depth pruning is compared with."""

from shortlm.width.methods import METHODS, read_method
from shortlm.width.planning import plan_width
from shortlm.width.pruning import prune_width
from shortlm.width.sources import Sources

__all__ = ["METHODS", "Sources", "plan_width", "prune_width", "read_method"]
