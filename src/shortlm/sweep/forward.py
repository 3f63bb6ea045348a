"""The one sweep: the loss of the model without these units, for many sets of units, in one walk.

Two sets that agree on the first i blocks share the hidden state there, so the walk carries one state per
distinct prefix of decisions. All L single removals and the whole model cost L(L+1)/2 block forwards.

Shapes: B sequences, T tokens, D hidden, V vocabulary, M masks, S sequences in all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from shortlm.errors import ScoreError
from shortlm.heap import give_back
from shortlm.progress import track
from shortlm.sweep.blocks import Batch, BlockCaller, predicted
from shortlm.sweep.check import Check, compare
from shortlm.sweep.decisions import DROP, LEFT_OUT, Path, count_forwards, in_chunks, path_of
from shortlm.sweep.dense import TopTokens
from shortlm.sweep.frontier import Frontier, Group, most_groups, split
from shortlm.sweep.kept import KeptPrefixes
from shortlm.sweep.ranks import Ranks
from shortlm.sweep.slots import Slots
from shortlm.sweep.tail import Tail
from shortlm.units import Mask, Unit

Observer = Callable[[int, torch.Tensor, torch.Tensor, Batch], None]
Rows = dict[Path, torch.Tensor]  # nats of one batch by path, B x T (or their sum over tokens, as T = 1), float64


@dataclass(frozen=True)
class Losses:
    """Summed cross-entropy (nats) of each sequence: of the whole model, and without the units of each mask."""

    base_S: torch.Tensor
    nats_MS: torch.Tensor
    tokens_S: torch.Tensor  # predicted tokens
    each_MST: torch.Tensor | None = None  # the masks' nats token by token, if asked for

    @property
    def mean_M(self) -> torch.Tensor:
        """Mean over all tokens, in nats."""
        return self.nats_MS.sum(1) / self.tokens_S.sum()

    def of(self, some: slice) -> Losses:
        """Of some of the sequences."""
        each_MST = None if self.each_MST is None else self.each_MST[:, some]
        return Losses(self.base_S[some], self.nats_MS[:, some], self.tokens_S[some], each_MST)

    @classmethod
    def joined(cls, parts: Sequence[Losses]) -> Losses:
        """Of all sequences of the parts."""
        each = [part.each_MST for part in parts if part.each_MST is not None]
        return cls(
            torch.cat([part.base_S for part in parts]), torch.cat([part.nats_MS for part in parts], dim=1),
            torch.cat([part.tokens_S for part in parts]), torch.cat(each, dim=1) if each else None,
        )  # fmt: skip


def sweep(
    caller: BlockCaller,
    batches: Sequence[tuple[torch.Tensor, torch.Tensor]],
    masks: Sequence[Mask] = (),
    observer: Observer | None = None,
    visitor: Callable[[int], object] | None = None,
    per_pass: int = 1,
    per_token: bool = False,
    check: int | None = None,
    most: int | None = None,
    kept: KeptPrefixes | None = None,
    keep: Sequence[Mask] = (),
    whole: bool = True,
    dense: Sequence[TopTokens] | None = None,
    collected: tuple[int, list[TopTokens]] | None = None,
    numbers: Sequence[int] | None = None,
) -> Losses:
    """Losses of the whole model and of the model without the units of each mask.

    `observer(i, h_in_BTD, h_out_BTD, batch)` sees every block of the whole model once per batch, and
    `visitor(i)` is called once per block while it is in memory. In one pass over the blocks `per_pass` batches
    are carried along: their states are in memory together. With `per_token` the losses also hold every token's.
    With `check`, a seed, they are compared with the model's own forward (check.py). `most` bounds the states of a batch
    that are in memory together, as the schedule says: from disk, so many masks go through the blocks at a time. What an
    earlier call has left in `kept` isn't computed again, and the states along the masks `keep` are left there; it knows
    the batches by `numbers`, or as 0, 1, ... Without `whole` the whole model's losses are left out (NaN). With `dense`,
    one entry per batch, the losses are KL divergences to what the whole model says, which an earlier call has
    `collected`: (top_k, a list that is filled).

    Raises ModelError if the losses differ from the model's own, or a unit can't be told apart.
    """
    n_blocks = len(caller.blocks)
    paths = [path_of(mask, n_blocks) for mask in (*([frozenset[Unit]()] if whole else []), *masks)]
    assert whole or check is None
    _refuse_unknown(caller, paths)
    checking = None if check is None else Check(caller, batches, len(masks), check)
    drawn = 0 if checking is None or checking.drawn is None else 1 + checking.drawn
    probes = checking.computed(paths[drawn]) if checking else []
    chunks = in_chunks(paths, most) if caller.disk and most else [sorted(set(paths))]
    wanted = [path_of(mask, n_blocks) for mask in keep]
    top_k = collected[0] if collected else 0
    going = _Going(caller, observer, per_token, most, kept, wanted, numbers or range(len(batches)), dense, top_k)
    rows: list[Rows] = [{} for _ in batches]
    total = len(batches) * sum(count_forwards(chunk) for chunk in chunks)
    with torch.no_grad(), track(what="sweep", total=total) as going.bar:
        for number, chunk in enumerate(chunks):
            for start in range(0, len(batches), per_pass):
                numbers = range(start, min(start + per_pass, len(batches)))
                found = going.passed(batches, numbers, chunk, visitor if start == number == 0 else None)
                for k, of_batch in zip(numbers, found, strict=True):
                    rows[k].update(of_batch)
    compare(
        probes, lambda k, masked: float(rows[k][paths[drawn if masked else 0]][0].sum()), caller.model.config.model_type
    )
    if collected:
        collected[1].extend(going.collected[k] for k in range(len(batches)))
    return _losses(rows, paths, batches, per_token, whole)


def gathered(losses: Losses, count: int, ranks: Ranks) -> Losses:
    """The losses of all `count` sequences, from those that each process has."""
    each_MST = None if losses.each_MST is None else ranks.all_gather(losses.each_MST, count, dim=1)
    return Losses(
        ranks.all_gather(losses.base_S, count), ranks.all_gather(losses.nats_MS, count, dim=1),
        ranks.all_gather(losses.tokens_S, count), each_MST,
    )  # fmt: skip


def _losses(rows: list[Rows], paths: list[Path], batches: Sequence, per_token: bool, whole: bool) -> Losses:
    """The first path is the whole model's, if that was asked for."""
    if not paths:
        nats_MS = torch.empty(0, sum(len(ids_BT) for ids_BT, _ in batches), dtype=torch.float64)
    else:
        nats_MS = torch.cat([torch.stack([of_batch[path].sum(1) for path in paths]) for of_batch in rows], dim=1)
    tokens_S = torch.cat([predicted(Batch.of(*batch)).sum(1).cpu().double() for batch in batches])
    each_MST = None
    if per_token:
        masked = paths[whole:]
        each_MST = torch.cat([torch.stack([of_batch[path] for path in masked]) for of_batch in rows], dim=1)
    base_S = nats_MS[0] if whole else torch.full_like(tokens_S, torch.nan)
    return Losses(base_S, nats_MS[whole:], tokens_S, each_MST)


def _refuse_unknown(caller: BlockCaller, paths: list[Path]) -> None:
    for i, decision in sorted({(i, d) for path in paths for i, d in enumerate(path) if d in LEFT_OUT}):
        caller.branches.refuse_unknown(i, LEFT_OUT[decision])


class _Going:
    """What stays the same from batch to batch."""

    def __init__(
        self, caller: BlockCaller, observer: Observer | None, per_token: bool, most: int | None,
        kept: KeptPrefixes | None, keep: list[Path], numbers: Sequence[int], dense: Sequence[TopTokens] | None,
        top_k: int,
    ):  # fmt: skip
        self.caller, self.observer, self.per_token, self.most = caller, observer, per_token, most
        self.kept, self.keep, self.tail = kept, keep, Tail(caller)
        self.numbers, self.dense, self.top_k = numbers, dense, top_k
        self.collected: dict[int, TopTokens] = {}  # by batch
        self.bar: Any = None

    def passed(
        self, batches: Sequence, numbers: range, paths: list[Path], visitor: Callable[[int], object] | None
    ) -> list[Rows]:
        """The nats of some batches for these paths, by one pass over the blocks."""
        self.caller.begin_pass()
        if not self.caller.disk:
            if visitor:
                for i in range(len(self.caller.blocks)):
                    visitor(i)
            return [_Walk(self, batches, k, paths).through_memory() for k in numbers]
        walks = [_Walk(self, batches, k, paths) for k in numbers]
        for i in self.caller.visit():
            if visitor:
                visitor(i)
            for walk in walks:
                walk.pass_block(i)
        with self.tail.loaded():
            return [walk.finished() for walk in walks]


class _Walk:
    """One batch on its way through the blocks: a state for each group of paths that agree so far."""

    def __init__(self, going: _Going, batches: Sequence, number: int, paths: list[Path]):
        self.going, self.caller, self.number = going, going.caller, number
        self.batch = batch = self.caller.prepare(*batches[number])
        assert batch.h_BTD is not None
        if going.kept:
            going.kept.want(going.keep, batch.h_BTD.nbytes // batch.ids_BT.numel())
        self.known_as = going.numbers[number]  # to what is kept
        self.start = going.kept.begin(self.known_as) if going.kept else {}
        self.frontier = Frontier(paths, {b"": batch.h_BTD} | self.start, len(self.caller.blocks))
        self.slots, self.base = Slots(), Slots()  # what is kept must not hold on to the slabs of what isn't
        batch.h_BTD = None  # so that it is freed once the first block is passed
        self.together = self.caller.together(batch)
        # results stand in one piece of memory: small ones, each by itself, would hold gaps of the heap open
        tokens = batch.ids_BT.shape[1] - 1 if going.per_token else 1
        self.places = {path: n for n, path in enumerate(paths)}
        self.nats_PBT = torch.zeros(len(paths), len(batch.ids_BT), tokens, dtype=torch.float64)

    def through_memory(self) -> Rows:
        """All paths to their ends, the order of blocks being free."""
        most = self.going.most or most_groups(len(self.caller.blocks), self.together)
        calls = 0
        while (i := self.frontier.next_block(most)) is not None:
            self._pass_some(i)
            self._finish(self.frontier.filled(self.together))
            calls += 1
            if calls % 256 == 0:
                give_back()  # gaps in the heap would add up over thousands of calls
        return self.finished()

    def pass_block(self, i: int) -> None:
        """All groups that wait for block i go through it."""
        while self.frontier.waiting[i]:
            self._pass_some(i)

    def finished(self) -> Rows:
        """The nats of all paths; states are freed."""
        while part := self.frontier.taken(len(self.caller.blocks), self.together):
            self._finish(part)
        if self.going.kept:
            self.going.kept.end(self.known_as, self.start)
        return {path: self.nats_PBT[n] for path, n in self.places.items()}

    def _pass_some(self, i: int) -> None:
        """As many groups as fill a call go through block i; one in which paths decide differently splits."""
        for decision, groups in split(i, self.frontier.taken(i, self.together)).items():
            if decision == DROP:
                for group in groups:
                    self._add(i, group.state, group.paths)
            elif groups:
                self._call(i, decision, groups)

    def _call(self, i: int, decision: int, groups: list[Group]) -> None:
        whole = next((k for k, group in enumerate(groups) if not any(group.paths[0])), None)
        out = self._passed(i, [group.state for group in groups], decision, whole)
        for k, (group, out_BTD) in enumerate(zip(groups, out, strict=True)):
            if k == whole:
                self._observe(i, group.state, out_BTD)
            self._add(i, out_BTD, group.paths)
        self.going.bar.update(len(groups))

    def _add(self, i: int, h_BTD: torch.Tensor, paths: list[Path]) -> None:
        self.frontier.add(i + 1, h_BTD, paths)
        if self.going.kept:
            self.going.kept.offer(self.known_as, paths[0][: i + 1], h_BTD)

    def _passed(self, i: int, states: list[torch.Tensor], decision: int, whole: int | None) -> list[torch.Tensor]:
        """Past block i; `whole` is the place of the whole model's state, which observers may keep."""
        out = self.caller.several(i, states, self.batch, decision)
        if self.caller.device.type == "cpu":
            return [(self.base if k == whole else self.slots).keep(h_BTD) for k, h_BTD in enumerate(out)]
        return list(out) if len(out) == 1 else [h_BTD.clone() for h_BTD in out]

    def _observe(self, i: int, in_BTD: torch.Tensor, out_BTD: torch.Tensor) -> None:
        _refuse_nan(i, out_BTD, self.batch)
        if self.going.observer:
            self.going.observer(i, in_BTD, out_BTD, self.batch)

    def _finish(self, part: list[Group]) -> None:
        tail, dense = self.going.tail, self.going.dense[self.number] if self.going.dense else None
        found = tail.nats_of_several([group.state for group in part], self.batch, dense) if part else []
        for group, nats_BT in zip(part, found, strict=True):
            if self.going.top_k and not any(group.paths[0]):
                self.going.collected[self.number] = tail.top(group.state, self.batch, self.going.top_k)
            nats_BT = nats_BT.cpu().double()
            for path in group.paths:
                self.nats_PBT[self.places[path]] = nats_BT if self.going.per_token else nats_BT.sum(1, keepdim=True)


def _refuse_nan(i: int, out_BTD: torch.Tensor, batch: Batch) -> None:
    if not bool(torch.isfinite(out_BTD[batch.keep_BT]).all()):
        raise ScoreError(f"block {i} makes NaN or inf of finite states; check its weights, or use --dtype float32")
