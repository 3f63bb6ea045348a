"""Measure quality."""

from shortlm.evaluate.evaluation import check_evaluation, evaluate
from shortlm.evaluate.perplexity import perplexity

__all__ = ["check_evaluation", "evaluate", "perplexity"]
