"""Repair without training: what the missing blocks did is folded, in closed form, into weights that stay."""

from shortlm.repair.methods import METHODS, read_method, repairs_widths
from shortlm.repair.planning import plan_repair
from shortlm.repair.ranking import losses_after_repair
from shortlm.repair.repairing import repair
from shortlm.repair.sources import check_repair, sources_of

__all__ = [
    "METHODS",
    "check_repair",
    "losses_after_repair",
    "plan_repair",
    "read_method",
    "repair",
    "repairs_widths",
    "sources_of",
]
