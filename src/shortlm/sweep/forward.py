"""The one sweep: the loss of the model without these blocks, for many sets of blocks, in one walk.

Two sets that agree on the first i blocks share the hidden state there, so the walk carries one state per
distinct prefix of decisions. All L single removals and the whole model cost L(L+1)/2 block forwards.

Shapes: B sequences, T tokens, D hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from shortlm.errors import ScoreError
from shortlm.progress import track
from shortlm.sweep.blocks import Batch, BlockCaller, predicted
from shortlm.sweep.check import Check, compare
from shortlm.sweep.ranks import Ranks
from shortlm.sweep.slots import Slots
from shortlm.sweep.tail import Tail

Mask = frozenset[int]  # the blocks that are dropped
Observer = Callable[[int, torch.Tensor, torch.Tensor, Batch], None]
NOTHING: Mask = frozenset()


@dataclass(frozen=True)
class Losses:
    """Summed cross-entropy (nats) of each sequence: of the whole model, and without the blocks of each mask."""

    base_S: torch.Tensor
    nats_MS: torch.Tensor
    tokens_S: torch.Tensor  # predicted tokens
    each_MST: torch.Tensor | None = None  # the masks' nats token by token, if asked for

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
    per_token: bool = False,
    check: int | None = None,
) -> Losses:
    """Losses of the whole model and of the model without the blocks of each mask.

    `observer(i, h_in_BTD, h_out_BTD, batch)` sees every block of the whole model once per batch, and
    `visitor(i)` is called once per block while it is in memory. In one pass over the blocks `per_pass` batches
    are carried along: their states are in memory together. With `per_token` the losses also hold every token's.
    With `check`, a seed, they are compared with the model's own forward (check.py). Raises ModelError if they differ.
    """
    checking = None if check is None else Check(caller, batches, len(masks), check)
    drawn = checking.drawn if checking else None
    probes = checking.computed(NOTHING if drawn is None else masks[drawn]) if checking else []
    rows, tail = [], Tail(caller)
    with torch.no_grad(), track(what="sweep", total=len(batches) * len(caller.blocks)) as bar:
        for start in range(0, len(batches), per_pass):
            caller.begin_pass()
            part = [
                _Walk(caller, caller.prepare(*batch), masks, observer) for batch in batches[start : start + per_pass]
            ]
            for i in caller.visit():
                if visitor and start == 0:
                    visitor(i)
                for walk in part:
                    walk.pass_block(i)
                    bar.update(1)
            with tail.loaded():
                rows += [walk.finished(tail, per_token) for walk in part]
    compare(
        probes,
        lambda k, masked: float(rows[k][0][1 + (drawn or 0) if masked else 0, 0].sum()),
        caller.model.config.model_type,
    )
    nats_MS = torch.cat([nats_MBT.sum(2) for nats_MBT, _ in rows], dim=1)
    each_MST = torch.cat([nats_MBT[1:] for nats_MBT, _ in rows], dim=1) if per_token else None
    return Losses(nats_MS[0], nats_MS[1:], torch.cat([tokens_B for _, tokens_B in rows]), each_MST)


def gathered(losses: Losses, count: int, ranks: Ranks) -> Losses:
    """The losses of all `count` sequences, from those that each process has."""
    each_MST = None if losses.each_MST is None else ranks.concat(losses.each_MST, count, dim=1)
    return Losses(
        ranks.concat(losses.base_S, count), ranks.concat(losses.nats_MS, count, dim=1),
        ranks.concat(losses.tokens_S, count), each_MST,
    )  # fmt: skip


class _Walk:
    """One batch on its way through the blocks: a state for each group of masks that agree so far."""

    def __init__(self, caller: BlockCaller, batch: Batch, masks: Sequence[Mask], observer: Observer | None):
        self.caller, self.batch, self.observer = caller, batch, observer
        self.masks = [NOTHING, *masks]
        assert batch.h_BTD is not None
        self.groups = [(batch.h_BTD, list(range(len(self.masks))))]
        self.slots, self.base = Slots(), Slots()  # what is kept must not hold on to the slabs of what isn't
        batch.h_BTD = None  # so that it is freed once the first block is passed

    def pass_block(self, i: int) -> None:
        """Take every group past block i; one in which not all masks drop or keep it splits in two."""
        old, self.groups = self.groups[::-1], []
        together = self.caller.together(self.batch)
        while old:  # a state is freed as soon as it has passed
            part = [old.pop() for _ in range(min(together, len(old)))]
            keeping = [[m for m in members if i not in self.masks[m]] for _, members in part]
            going = [(h_BTD, 0 in k) for (h_BTD, _), k in zip(part, keeping, strict=True) if k]
            whole = next((place for place, (_, is_whole) in enumerate(going) if is_whole), None)
            passed = iter(self._passed(i, [h_BTD for h_BTD, _ in going], whole))
            for (h_BTD, members), kept in zip(part, keeping, strict=True):
                if len(kept) < len(members):
                    self.groups.append((h_BTD, [m for m in members if i in self.masks[m]]))
                if kept:
                    out_BTD = next(passed)
                    self.groups.append((out_BTD, kept))
                    if 0 in kept:
                        self._observe(i, h_BTD, out_BTD)

    def _passed(self, i: int, states: list[torch.Tensor], whole: int | None) -> list[torch.Tensor]:
        """Past block i; `whole` is the place of the whole model's state, which observers may keep."""
        out = self.caller.several(i, states, self.batch)
        if self.caller.device.type == "cpu":
            return [(self.base if k == whole else self.slots).keep(h_BTD) for k, h_BTD in enumerate(out)]
        return list(out) if len(out) == 1 else [h_BTD.clone() for h_BTD in out]

    def _observe(self, i: int, in_BTD: torch.Tensor, out_BTD: torch.Tensor) -> None:
        _refuse_nan(i, out_BTD, self.batch)
        if self.observer:
            self.observer(i, in_BTD, out_BTD, self.batch)

    def finished(self, tail: Tail, per_token: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """nats_MBT (or their sum over tokens, as T = 1) and the predicted tokens of each sequence; states are freed."""
        rows: list[torch.Tensor] = [torch.empty(0)] * len(self.masks)
        together = self.caller.together(self.batch)
        while self.groups:
            part = [self.groups.pop() for _ in range(min(together, len(self.groups)))]
            found = tail.nats_of_several([h_BTD for h_BTD, _ in part], self.batch)
            for (_, members), nats_BT in zip(part, found, strict=True):
                nats_BT = nats_BT.cpu().double()
                for m in members:
                    rows[m] = nats_BT if per_token else nats_BT.sum(1, keepdim=True)
        return torch.stack(rows), predicted(self.batch).sum(1).cpu().double()


def _refuse_nan(i: int, out_BTD: torch.Tensor, batch: Batch) -> None:
    if not bool(torch.isfinite(out_BTD[batch.keep_BT]).all()):
        raise ScoreError(f"block {i} makes NaN or inf of finite states; check its weights, or use --dtype float32")
