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
    visitor: Callable[[int], object] | None = None,
    per_pass: int = 1,
) -> Losses:
    """Losses of the whole model and of the model without the blocks of each mask.

    `observer(i, h_in_BTD, h_out_BTD, batch)` sees every block of the whole model once per batch, and
    `visitor(i)` is called once per block while it is in memory. In one pass over the blocks `per_pass` batches
    are carried along: their states are in memory together.
    """
    walks = []
    with torch.no_grad(), track(what="sweep", total=len(batches) * len(caller.blocks)) as bar:
        for start in range(0, len(batches), per_pass):
            part = [
                _Walk(caller, caller.prepare(*batch), masks, observer) for batch in batches[start : start + per_pass]
            ]
            for i in caller.visit():
                if visitor and start == 0:
                    visitor(i)
                for walk in part:
                    walk.pass_block(i)
                    bar.update(1)
            walks += [walk.finished() for walk in part]
    nats_MS = torch.cat([nats_MB for nats_MB, _ in walks], dim=1)
    return Losses(nats_MS[0], nats_MS[1:], torch.cat([tokens_B for _, tokens_B in walks]))


class _Walk:
    """One batch on its way through the blocks: a state for each group of masks that agree so far."""

    def __init__(self, caller: BlockCaller, batch: Batch, masks: Sequence[Mask], observer: Observer | None):
        self.caller, self.batch, self.observer = caller, batch, observer
        self.masks = [NOTHING, *masks]
        assert batch.h_BTD is not None
        self.groups = [(batch.h_BTD, list(range(len(self.masks))))]
        batch.h_BTD = None  # so that it is freed once the first block is passed

    def pass_block(self, i: int) -> None:
        """Take every group past block i; one in which not all masks drop or keep it splits in two."""
        split = []
        for h_BTD, members in self.groups:
            if dropping := [m for m in members if i in self.masks[m]]:
                split.append((h_BTD, dropping))
            if keeping := [m for m in members if i not in self.masks[m]]:
                out_BTD = self.caller(i, h_BTD, self.batch)
                split.append((out_BTD, keeping))
                if 0 in keeping:
                    _refuse_nan(i, out_BTD, self.batch)
                    if self.observer:
                        self.observer(i, h_BTD, out_BTD, self.batch)
        self.groups = split

    def finished(self) -> tuple[torch.Tensor, torch.Tensor]:
        """nats_MB and the predicted tokens of each sequence; the states are freed."""
        nats_MB = torch.empty(len(self.masks), len(self.batch.ids_BT), dtype=torch.float64)
        for h_BTD, members in self.groups:
            nats_MB[members] = token_nats(self.caller.tail(h_BTD, self.batch), self.batch).sum(1).cpu()
        self.groups = []
        return nats_MB, predicted(self.batch).sum(1).double().cpu()


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
