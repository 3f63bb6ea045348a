"""Perplexity: exp of the mean cross-entropy over all predicted tokens of equal windows.

Shapes: B windows, T tokens, S windows in all.
"""

from __future__ import annotations

from typing import Any

import torch

from shortlm.artifacts import Perplexity
from shortlm.errors import ModelError
from shortlm.progress import track
from shortlm.statistics import mean_stderr
from shortlm.sweep import Batch, predicted, token_nats
from shortlm.text import Windows


def perplexity(model: Any, windows: Windows, batch_size: int = 8) -> Perplexity:
    """Perplexity of a loaded model with its standard error over windows. Raises ModelError if it is no number."""
    device = model.get_input_embeddings().weight.device
    nats, counts = [], []
    for ids_BT, keep_BT in track(windows.batches(batch_size), "perplexity"):
        batch = Batch(ids_BT.to(device), keep_BT.to(device))
        with torch.no_grad():
            logits_BTV = model(input_ids=batch.ids_BT, attention_mask=batch.mask, use_cache=False).logits
        nats.append(token_nats(logits_BTV, batch).sum(1).cpu())
        counts.append(predicted(batch).sum(1).double().cpu())
    return _summary(torch.cat(nats), torch.cat(counts), windows)


def _summary(nats_S: torch.Tensor, tokens_S: torch.Tensor, windows: Windows) -> Perplexity:
    mean = nats_S.sum() / tokens_S.sum()
    if not torch.isfinite(mean.exp()):
        raise ModelError(f"perplexity on {windows.facts.source} is {float(mean.exp())}; try --dtype float32")
    stderr = mean_stderr((nats_S / tokens_S)[None], tokens_S / tokens_S.sum()) if len(nats_S) > 1 else None
    return Perplexity(
        text=windows.facts.source, data=windows.facts, perplexity=float(mean.exp()), nats_per_token=float(mean),
        stderr_nats=None if stderr is None else float(stderr),
        per_sequence_nats=nats_S.tolist(), tokens_per_sequence=tokens_S.long().tolist(),
    )  # fmt: skip
