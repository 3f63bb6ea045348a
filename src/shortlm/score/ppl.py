"""Perplexity without each block (Shortened LLaMA, 2402.02834) or sublayer (BlockPruner, FinerCut): exp of the mean
cross-entropy over all tokens.
"""

from __future__ import annotations

from shortlm.artifacts import CriterionScores
from shortlm.score.criterion import Criterion
from shortlm.statistics import mean_stderr
from shortlm.sweep import Losses


class Ppl(Criterion):
    """`per_sequence` holds nats per token, since these average; their standard error is carried to the perplexity."""

    name, unit = "ppl", "perplexity"
    needs = frozenset({"removals"})
    presets = {"shortened-llm": {}}

    def removals(self, losses: Losses) -> None:
        self.losses = losses

    def result(self) -> CriterionScores:
        losses, tokens_S, ppl_L = self.losses, self.losses.tokens_S, self.losses.mean_M.exp()
        weights_S = tokens_S / tokens_S.sum()
        paired_L = mean_stderr((losses.nats_MS - losses.base_S) / tokens_S, weights_S) * ppl_L
        return CriterionScores(
            scores=ppl_L.tolist(), unit=self.unit,
            paired_stderr=paired_L.tolist() if len(tokens_S) > 1 else None,
            per_sequence=(losses.nats_MS / tokens_S).tolist(), weights=weights_S.tolist(),
        )  # fmt: skip
