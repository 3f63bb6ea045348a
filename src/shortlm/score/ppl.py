"""Perplexity without each block (Shortened LLaMA, 2402.02834): exp of the mean cross-entropy over all tokens."""

from __future__ import annotations

from shortlm.artifacts import CriterionScores
from shortlm.score.criterion import Criterion
from shortlm.sweep import Losses


class Ppl(Criterion):
    """`per_sequence` holds nats per token, since these average; their standard error is carried to the perplexity."""

    name, unit = "ppl", "perplexity"
    needs = frozenset({"removals"})
    presets = {"shortened-llm": {}}

    def removals(self, losses: Losses) -> None:
        self.losses = losses

    def result(self) -> CriterionScores:
        nats_LS, tokens_S = self.losses.nats_MS, self.losses.tokens_S
        return CriterionScores(
            scores=self.losses.mean_M.exp().tolist(), unit=self.unit,
            per_sequence=(nats_LS / tokens_S).tolist(), weights=(tokens_S / tokens_S.sum()).tolist(),
        )  # fmt: skip
