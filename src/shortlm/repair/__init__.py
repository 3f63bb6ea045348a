"""Repair without training: what the missing blocks did is folded, in closed form, into weights that stay."""

from shortlm.repair.methods import METHODS, read_method
from shortlm.repair.repairing import repair

__all__ = ["METHODS", "read_method", "repair"]
