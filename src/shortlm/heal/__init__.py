"""Heal: train a shortened model so that it gets its quality back."""

from shortlm.heal.healing import heal
from shortlm.heal.planning import Cluster, plan_healing

__all__ = ["Cluster", "heal", "plan_healing"]
