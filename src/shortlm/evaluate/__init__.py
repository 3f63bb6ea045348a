"""Measure quality."""

from shortlm.evaluate.evaluation import evaluate
from shortlm.evaluate.perplexity import perplexity

__all__ = ["evaluate", "perplexity"]
