"""Heal: train a shortened model so that it gets its quality back."""

import logging

# At its import, which peft or accelerate may cause, it tells of a kernel for inference that nothing here needs.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

from shortlm.heal.chain import check_healing, heal  # noqa: E402
from shortlm.heal.estimate import Cluster, estimate_healing  # noqa: E402
from shortlm.heal.processes import join_processes, wait_for_all  # noqa: E402

__all__ = ["Cluster", "check_healing", "estimate_healing", "heal", "join_processes", "wait_for_all"]
