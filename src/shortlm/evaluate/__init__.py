"""Measure quality."""

from shortlm.evaluate.evaluation import evaluate
from shortlm.evaluate.harness import refuse_unknown_tasks
from shortlm.evaluate.perplexity import perplexity

__all__ = ["evaluate", "perplexity", "refuse_unknown_tasks"]
