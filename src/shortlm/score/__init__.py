"""Score the blocks of a model by several criteria in one pass over the text."""

from shortlm.score.registry import CRITERIA, parse
from shortlm.score.scoring import score, score_model

__all__ = ["CRITERIA", "parse", "score", "score_model"]
