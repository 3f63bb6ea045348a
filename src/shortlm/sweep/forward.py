"""The one sweep: the loss of the model without these blocks, for many sets of blocks, in one walk.

Two sets that agree on the first i blocks share the hidden state there, so the walk carries one state per
distinct prefix of decisions. All L single removals and the whole model cost L(L+1)/2 block forwards.

Shapes: B sequences, T tokens, D hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from shortlm.errors import ScoreError
from shortlm.progress import track
from shortlm.sweep.blocks import Batch, BlockCaller

Mask = frozenset[int]  # the blocks that are dropped
Observer = Callable[[int, torch.Tensor, torch.Tensor, Batch], None]
NOTHING: Mask = frozenset()


@dataclass(frozen=True)
class Losses:
    """Summed cross-entropy (nats) of each sequence: of the whole model, and without the blocks of each mask."""

    base_S: torch.Tensor
    nats_MS: torch.Tensor
    tokens_S: torch.Tensor  # predicted tokens

    @property
    def mean_M(self) -> torch.Tensor:
        """Mean over all tokens, in nats."""
        return self.nats_MS.sum(1) / self.tokens_S.sum()


def sweep(
    caller: BlockCaller,
    batches: Sequence[tuple[torch.Tensor, torch.Tensor]],
    masks: Sequence[Mask] = (),
    observer: Observer | None = None,
) -> Losses:
    """Losses of the whole model and of the model without the blocks of each mask.

    `observer(i, h_in_BTD, h_out_BTD, batch)` sees every block of the whole model once per batch.
    """
    columns, counts = [], []
    with torch.no_grad(), track(what="sweep", total=len(batches) * len(caller.blocks)) as bar:
        for ids_BT, keep_BT in batches:
            batch = caller.prepare(ids_BT, keep_BT)
            columns.append(_walk(caller, batch, [NOTHING, *masks], observer, bar.update))
            counts.append(predicted(batch).sum(1).double().cpu())
    nats_MS = torch.cat(columns, dim=1)
    return Losses(nats_MS[0], nats_MS[1:], torch.cat(counts))


def _walk(
    caller: BlockCaller, batch: Batch, masks: list[Mask], observer: Observer | None, done: Callable[[int], object]
) -> torch.Tensor:
    """nats_MB of one batch: all masks start with one shared state; at each block a group may split in two."""
    assert batch.h_BTD is not None
    groups = [(batch.h_BTD, list(range(len(masks))))]
    for i in range(len(caller.blocks)):
        split = []
        for h_BTD, members in groups:
            if dropping := [m for m in members if i in masks[m]]:
                split.append((h_BTD, dropping))
            if keeping := [m for m in members if i not in masks[m]]:
                out_BTD = caller(i, h_BTD, batch)
                split.append((out_BTD, keeping))
                if 0 in keeping:
                    _refuse_nan(i, out_BTD, batch)
                    if observer:
                        observer(i, h_BTD, out_BTD, batch)
        groups = split
        done(1)
    nats_MB = torch.empty(len(masks), len(batch.ids_BT), dtype=torch.float64)
    for h_BTD, members in groups:
        nats_MB[members] = token_nats(caller.tail(h_BTD, batch), batch).sum(1).cpu()
    return nats_MB


def _refuse_nan(i: int, out_BTD: torch.Tensor, batch: Batch) -> None:
    if not bool(torch.isfinite(out_BTD[batch.keep_BT]).all()):
        raise ScoreError(f"block {i} makes NaN or inf of finite states; check its weights, or use --dtype float32")


def predicted(batch: Batch) -> torch.Tensor:
    """B x (T-1), true where both a token and the one it is predicted from are no padding."""
    return batch.keep_BT[:, 1:] & batch.keep_BT[:, :-1]


def token_nats(logits_BTV: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Cross-entropy of each next token, B x (T-1), float64, 0 on padding. One sequence at a time in float32."""
    rows = [
        F.cross_entropy(logits_TV[:-1].float(), ids_T[1:], reduction="none")
        for logits_TV, ids_T in zip(logits_BTV, batch.ids_BT, strict=True)
    ]
    return torch.stack(rows).double() * predicted(batch)
