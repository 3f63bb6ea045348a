"""What the whole model says of every next token, kept for the KL divergence of shorter ones to it.

Its top_k log-probabilities, and all other tokens as one class: so memory is bounded by tokens x top_k, whatever the
vocabulary. EvoPress (2410.14649) searches by this divergence.

Shapes: B sequences, T tokens, K = top_k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

BYTES = 8  # of each token and class: an int32 and a float32
FAINT = 1e-9  # a probability of the rest below this counts as none


@dataclass(frozen=True)
class TopTokens:
    """The likeliest next tokens of each position but the last, and their log-probabilities."""

    ids_BTK: torch.Tensor  # int32
    log_BTK: torch.Tensor  # float32

    def divergence(self, lse_BT: torch.Tensor, logits_BTK: torch.Tensor) -> torch.Tensor:
        """KL divergence (nats, B x T) of a model with these logits of the same tokens; lse_BT over all its logits."""
        p_log, q_log = self.log_BTK.to(lse_BT.device).double(), (logits_BTK - lse_BT[..., None]).double()
        p, q = p_log.exp(), q_log.exp()
        p_rest, q_rest = (1 - p.sum(-1)).clamp(min=0), (1 - q.sum(-1)).clamp(min=FAINT)
        rest = torch.where(p_rest > FAINT, p_rest * (p_rest.clamp(min=FAINT).log() - q_rest.log()), 0.0)
        return ((p * (p_log - q_log)).sum(-1) + rest).clamp(min=0)


@dataclass
class DenseModel:
    """The top tokens of all sequences; `rows` are filled by a sweep of the whole model."""

    top_k: int
    rows: list[TopTokens] = field(default_factory=list)  # one per sequence, B = 1

    def batches(self, sizes: Sequence[int], which: Sequence[int]) -> list[TopTokens]:
        """Of batches of so many sequences each, which are those numbered `which`, in order."""
        found, start = [], 0
        for size in sizes:
            rows = [self.rows[s] for s in which[start : start + size]]
            found.append(TopTokens(torch.cat([r.ids_BTK for r in rows]), torch.cat([r.log_BTK for r in rows])))
            start += size
        return found

    def take(self, of_batches: Sequence[TopTokens]) -> None:
        """What a sweep has collected, in the order of its batches."""
        self.rows = [
            TopTokens(ids[None], log[None])
            for top in of_batches
            for ids, log in zip(top.ids_BTK, top.log_BTK, strict=True)
        ]
