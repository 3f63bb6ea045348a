"""Cut a checkpoint and prove the cut."""

from shortlm.cut.cutting import cut, refuse_uncuttable
from shortlm.cut.proof import cached_logits, prove

__all__ = ["cached_logits", "cut", "prove", "refuse_uncuttable"]
