"""Score the blocks of a model by several criteria in one pass over the text."""

from shortlm.score.registry import CRITERIA, parse
from shortlm.score.scoring import score, score_model
from shortlm.score.work_estimate import plan_memory

__all__ = ["CRITERIA", "parse", "plan_memory", "score", "score_model"]
