"""Windows that no weight was fitted on: the losses of all three models, and whether the written one has that loss."""

from __future__ import annotations

from pathlib import Path

import torch

from shortlm.artifacts import ValidationLoss
from shortlm.errors import ModelError
from shortlm.model import open_files
from shortlm.recipe import ModelSettings
from shortlm.repair.fitting import Fitting
from shortlm.statistics import stderr
from shortlm.sweep import BlockCaller, Side, Tail, predicted
from shortlm.text import Windows

CLOSE = {"float32": 1e-4}  # nats per token by which the written model's loss may differ from the walk's
CLOSE_ELSEWHERE = 0.01
SCALED = 0.002  # the same, where all before a gap is scaled: the eps of the norms there is not


def losses(fitting: Fitting) -> tuple[ValidationLoss, list[float]]:
    """Of all three models; and the repaired model's summed nats of every window.

    Raises ModelError for a loss that is no number.
    """
    n = fitting.fitted
    mine = [nats(fitting.dense, n), nats(fitting.untouched), nats(fitting.repaired, n)]
    mine.append(torch.cat([predicted(batch).sum(1) for batch in fitting.untouched.batches]).cpu().double())
    count = int(fitting.ranks.total(len(mine[0])))
    dense_S, cut_S, repaired_S, tokens_S = (fitting.ranks.all_gather(of_S, count) for of_S in mine)
    dense, cut, repaired = (float(of_S.sum() / tokens_S.sum()) for of_S in (dense_S, cut_S, repaired_S))
    if not torch.tensor([dense, cut, repaired]).isfinite().all():
        raise ModelError("a loss on the validation windows is no number; compute in --dtype float32")
    difference_S = (repaired_S - cut_S) / tokens_S.clamp_min(1)
    error = stderr(difference_S.tolist(), (tokens_S / tokens_S.sum()).tolist())
    loss = ValidationLoss(dense=dense, cut=cut, repaired=repaired, stderr=error, tokens=int(tokens_S.sum()))
    return loss, repaired_S.tolist()


def nats(side: Side, start: int = 0) -> torch.Tensor:
    """Summed over the tokens of each window of the batches from `start` on."""
    tail = Tail(side.caller)
    with tail.loaded():
        pairs = list(zip(side.states, side.batches, strict=True))[start:]
        return torch.cat([tail.nats(h_BTD, batch).sum(1).double().cpu() for h_BTD, batch in pairs])


def check_written(model: ModelSettings, part: Path, window: Windows, expected: float, scaled: bool) -> None:
    """The checkpoint in `part` has, on this window, the summed nats that the walk came to.

    Raises ModelError if not: this architecture writes its residual stream in other places too.
    """
    files = open_files(model.model_copy(update={"model": str(part), "revision": None}))
    opened = files.open(model.stream == "on" or (model.stream == "auto" and not files.fits()))
    side = Side.of(BlockCaller(opened.model, opened.anatomy, opened.disk), window.batches(1))
    for i in side.caller.visit():
        side.pass_block(i)
    found, tokens = float(nats(side)[0]), window.shape[1] - 1
    allowed = max(CLOSE.get(opened.dtype, CLOSE_ELSEWHERE), SCALED if scaled else 0)
    if not abs(found - expected) <= allowed * tokens:
        raise ModelError(
            f"the repaired model's loss, as written, is {found / tokens:.5f} on a window where {expected / tokens:.5f} "
            "was computed; nothing was written; this method doesn't fit this architecture: give another --method"
        )
