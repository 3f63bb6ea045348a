"""Perplexity: exp of the mean cross-entropy over all predicted tokens of equal windows.

Shapes: S windows.
"""

from __future__ import annotations

import torch

from shortlm.artifacts import Perplexity
from shortlm.errors import ModelError
from shortlm.model import OpenModel
from shortlm.statistics import mean_stderr
from shortlm.sweep import BlockCaller, Schedule, batched, sweep
from shortlm.text import Windows


def perplexity(
    opened: OpenModel, windows: Windows, batch_size: int = 0, schedule: Schedule | None = None
) -> Perplexity:
    """Perplexity of an open model (in memory or on disk) with its standard error over windows.

    It is the sweep that drops nothing. `batch_size` of 0 takes what runs fastest; a schedule of the sweep says it
    itself. Raises ModelError if it is no number.
    """
    caller = BlockCaller(opened.model, opened.anatomy, opened.disk)
    batches, per_pass = batched(caller, windows, batch_size, schedule)
    losses = sweep(caller, batches, per_pass=per_pass)
    nats_S, tokens_S = losses.base_S, losses.tokens_S
    mean = nats_S.sum() / tokens_S.sum()
    if not torch.isfinite(mean.exp()):
        raise ModelError(f"perplexity on {windows.facts.source} is {float(mean.exp())}; try --dtype float32")
    stderr = mean_stderr((nats_S / tokens_S)[None], tokens_S / tokens_S.sum()) if len(nats_S) > 1 else None
    return Perplexity(
        text=windows.facts.source, data=windows.facts, perplexity=float(mean.exp()), nats_per_token=float(mean),
        stderr_nats=None if stderr is None else float(stderr),
        per_sequence_nats=nats_S.tolist(), tokens_per_sequence=tokens_S.long().tolist(),
    )  # fmt: skip
