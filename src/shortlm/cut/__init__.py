"""Cut a checkpoint and prove the cut (`shortlm.cut.proof`, which needs torch)."""

from shortlm.cut.cutting import cut, refuse_uncuttable

__all__ = ["cut", "refuse_uncuttable"]
