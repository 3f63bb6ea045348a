"""What makes losses trustworthy: the walk over blocks agrees with the model's own forward, and numbers are finite."""

from __future__ import annotations

import math

import torch

from shortlm.errors import ModelError, ScoreError
from shortlm.sweep import Batch, BlockCaller, Losses, bypassed, token_nats

AGREEMENT = {torch.float32: 1e-4}  # relative; half types: 5 %, what batches of other sizes may differ by


def verify(caller: BlockCaller, ids_BT: torch.Tensor, keep_BT: torch.Tensor, losses: Losses) -> None:
    """The walk over blocks and the model's own forward must agree: it is how unknown architectures are trusted.

    Compared on the first sequence: the whole model, and the model without block 0 if removals were scored.
    """
    first = Batch.of(ids_BT[:1].to(caller.device), keep_BT[:1].to(caller.device))
    walked = {(): losses.base_S[0]} | ({(0,): losses.nats_MS[0, 0]} if len(losses.nats_MS) else {})
    for dropped, nats in walked.items():
        with torch.no_grad(), bypassed(caller.blocks, list(dropped)):
            logits_BTV = caller.model(input_ids=first.ids_BT, attention_mask=first.mask, use_cache=False).logits
        plain = float(token_nats(logits_BTV, first).sum())
        if not abs(float(nats) - plain) <= AGREEMENT.get(caller.model.dtype, 0.05) * abs(plain):
            raise ModelError(
                f"{caller.model.config.model_type}: the loss by single blocks ({float(nats):.6g}) is not the model's "
                f"own ({plain:.6g}); its blocks depend on one another, so it can't be scored this way"
            )


def perplexity_of(losses: Losses) -> float:
    """The whole model's. Raises ScoreError if it is no number."""
    value = float((losses.base_S.sum() / losses.tokens_S.sum()).exp())
    if not math.isfinite(value):
        raise ScoreError(f"the whole model's perplexity is {value}; check its weights, or use --dtype float32")
    return value


def refuse_no_number(spec: str, scores: list[float]) -> None:
    """Raise ScoreError, naming the block, if a score is NaN or infinite."""
    for i, value in enumerate(scores):
        if not math.isfinite(value):
            raise ScoreError(
                f"criterion '{spec}': the score of block {i} is {value}; "
                "check the block's weights, or compute in --dtype float32"
            )
