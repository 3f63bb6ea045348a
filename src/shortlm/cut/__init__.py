"""Cut a checkpoint, and check that the result computes the same (`shortlm.sweep.equivalence`, which needs torch)."""

from shortlm.cut.cutting import cut, refuse_uncuttable

__all__ = ["cut", "refuse_uncuttable"]
