"""Heal: train a shortened model so that it gets its quality back."""

from shortlm.heal.healing import heal
from shortlm.heal.planning import Cluster, plan_healing
from shortlm.heal.processes import join_processes, wait_for_all

__all__ = ["Cluster", "heal", "join_processes", "plan_healing", "wait_for_all"]
