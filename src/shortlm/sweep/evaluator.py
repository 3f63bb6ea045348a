"""The losses of sets of units on one text, for methods that ask the model: what was asked, and what it took.

The sequences stand in parts, each a batch of every process, so that a search may ask for a few of them and still start
from the states that were kept when all were asked for. The whole model is computed once for each part.

Shapes: S sequences, M masks, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

import torch

from shortlm.artifacts import Search, Tried
from shortlm.sweep.backward import BlockGradients, backward_sweep
from shortlm.sweep.blocks import BlockCaller
from shortlm.sweep.dense import DenseModel
from shortlm.sweep.forward import Losses, gathered, sweep
from shortlm.sweep.job import Job
from shortlm.sweep.kept import KeptPrefixes
from shortlm.sweep.recall import Recall
from shortlm.sweep.scheduler import auto_batch_size
from shortlm.text import Windows
from shortlm.units import Mask, Unit

CROSS_ENTROPY, KL = "cross-entropy", "kl"
WHOLE: Mask = frozenset()


class Evaluator:
    """Evaluates masks over a job's sequences; all processes call it with the same masks.

    `kept_bytes` may be held from call to call by states of the masks that a call names in `keep`. With a `top_k` the
    losses are KL divergences to the whole model. What `recall` holds of an earlier search is not computed again. There
    are at least `rounds` parts, if there are sequences enough.
    """

    def __init__(
        self, job: Job, batch_size: int = 0, check: bool = True, kept_bytes: int = 0, top_k: int = 0,
        windows: Windows | None = None, recall: Recall | None = None, rounds: int = 1,
    ):  # fmt: skip
        found = windows or job.windows
        assert found is not None
        self.job, self.windows, self.recall = job, found, recall or Recall()
        self.caller = BlockCaller(job.opened.model, job.opened.anatomy, job.opened.disk)
        self.n_blocks, self.sequences = len(self.caller.blocks), len(found.ids_BT)
        self.batch_size = batch_size
        self.parts = self._parts(rounds)
        self.batches = [self._share(part).batches(self._size()) for part in self.parts]  # of this process, by part
        self.check = check  # the first call is compared with the model's own forward
        self.kept = KeptPrefixes(kept_bytes, self._share_of_tokens()) if kept_bytes else None
        self.dense = DenseModel(top_k) if top_k else None
        self.before = 0  # block forwards of one sequence, in an earlier search that is gone on with
        self.base: dict[int, torch.Tensor] = {}  # summed cross-entropy of the whole model, by part
        self.tried: dict[Mask, dict[int, float]] = {}  # nats on each part

    def losses(
        self, masks: Sequence[Mask], parts: Sequence[int] | None = None, per_token: bool = False,
        keep: Sequence[Mask] = (),
    ) -> Losses:  # fmt: skip
        """Of the whole model and without the units of each mask, on some parts of the sequences (all of them).

        The whole model's are cross-entropies, or all 0 where divergences are asked for.
        """
        parts = list(range(len(self.parts))) if parts is None else list(parts)
        if answer := self.recall.next(masks, parts, per_token):
            losses, forwards = answer
            self.before = forwards - self._passed()
            losses = self._with_base(losses, parts)
        else:
            losses = self._with_base(self._swept(masks, parts, per_token, keep), parts)
            self.recall.keep(losses, round(self.forwards * self.sequences), masks, parts, per_token)
        self._remember(masks, parts, losses)
        return replace(losses, base_S=torch.zeros_like(losses.base_S)) if self.dense else losses

    @property
    def base_S(self) -> torch.Tensor:
        """The whole model's summed objective on every sequence; all parts have been asked for."""
        base_S = torch.cat([self.base[part] for part in range(len(self.parts))])
        return torch.zeros_like(base_S) if self.dense else base_S

    @property
    def shares_S(self) -> torch.Tensor:
        """The factor of every sequence's sum in the mean per token."""
        return self.windows.shares_S

    @property
    def tokens(self) -> int:
        """Predicted tokens of all sequences."""
        return self._tokens(range(len(self.parts)))

    def first_order(self, units: Sequence[Unit]) -> list[float]:
        """By how much the mean cross-entropy would grow without each unit, to first order behind its block.

        One forward and one backward sweep: the sum of <dLoss/dh_{i+1}, block i without the unit - h_{i+1}>.
        """
        mine = [s for part in range(len(self.parts)) for s in self._mine(part)]
        batches = [batch for part in self.batches for batch in part]
        found: dict[Unit, float] = {}

        def on_block(block: BlockGradients) -> None:
            for unit in (u for u in units if u.block == block.index):
                found[unit] = sum(float(block.effect_of(unit.part, passage).sum()) for passage in block.passages)

        backward_sweep(self.caller, batches, self.shares_S[mine], on_block, of_weights=False)
        values = torch.tensor([found[unit] for unit in units], dtype=torch.float64)
        self.job.ranks.all_reduce(values)
        return values.tolist()

    @property
    def base_nats(self) -> float:
        """Of the whole model: mean cross-entropy per token of the parts that were asked for."""
        return float(sum(base_S.sum() for base_S in self.base.values())) / max(1, self._tokens(self.base))

    @property
    def forwards(self) -> float:
        """Block forwards so far, each over all sequences once, whatever the batches and processes."""
        return (self.before + self._passed()) / self.sequences

    def _passed(self) -> int:
        """Of all processes, each for one sequence."""
        return int(self.job.ranks.total(self.caller.passed))

    def search(self) -> Search:
        """What was asked so far."""
        return Search(
            base_nats=self.base_nats, tried=[self._as_tried(*entry) for entry in self.tried.items()],
            sets=len(self.tried), block_forwards=round(self.forwards), data=self.windows.facts,
            objective=KL if self.dense else CROSS_ENTROPY,
        )  # fmt: skip

    @property
    def batch(self) -> int:
        """Sequences of the largest batch."""
        return max(len(ids_BT) for batches in self.batches for ids_BT, _ in batches)

    def _size(self) -> int:
        """Sequences of a batch, as runs fastest or was scheduled."""
        if self.job.schedule and not self.batch_size:
            return self.job.schedule.batch_size
        share = -(-self.sequences // self.job.ranks.size)
        return self.batch_size or auto_batch_size(share, self.windows.shape[1], self.caller.device)

    def _parts(self, rounds: int) -> list[slice]:
        """Equal shares of the sequences, with a batch for every process."""
        size = self.job.ranks.size
        count = max(1, -(-self.sequences // (self._size() * size)), min(rounds, self.sequences // size))
        count = min(count, max(1, self.sequences // size))  # a sequence for every process
        bounds = [self.sequences * p // count for p in range(count + 1)]
        return [slice(*pair) for pair in pairwise(bounds)]

    def _share_of_tokens(self) -> int:
        """Places for tokens in all batches of this process."""
        return sum(ids_BT.numel() for batches in self.batches for ids_BT, _ in batches)

    def _mine(self, part: int) -> range:
        """The sequences of a part that this process has."""
        every = range(self.sequences)[self.parts[part]]
        return every[self.job.ranks.share(len(every))]

    def _share(self, part: slice) -> Windows:
        """What this process has of a part."""
        whole = self.windows.part(part)
        return whole.part(self.job.ranks.share(len(whole.ids_BT)))

    def _swept(self, masks: Sequence[Mask], parts: Sequence[int], per_token: bool, keep: Sequence[Mask]) -> Losses:
        """The whole model's losses are NaN where they are known already."""
        if self.dense and not self.dense.rows:
            self._collect()
        whole = self.check or any(part not in self.base for part in parts)
        batches = [batch for part in parts for batch in self.batches[part]]
        numbers = [n for n, part in self._numbers() if part in set(parts)]
        sizes, schedule = [len(ids_BT) for ids_BT, _ in batches], self.job.schedule
        dense = self.dense.batches(sizes, self._rows(parts)) if self.dense else None
        losses = sweep(
            self.caller, batches, masks, per_pass=self._per_pass(len(batches)), per_token=per_token,
            check=0 if self.check else None, most=schedule.most if schedule else None, kept=self.kept, keep=keep,
            whole=whole, dense=dense, numbers=numbers,
        )  # fmt: skip
        self.check = False
        return self._gathered(losses, parts)

    def _collect(self) -> None:
        """What the whole model says of all sequences, by a sweep of it alone."""
        assert self.dense is not None
        parts, batches = list(range(len(self.parts))), [batch for part in self.batches for batch in part]
        collected: tuple[int, list] = (self.dense.top_k, [])
        losses = sweep(
            self.caller, batches, per_pass=self._per_pass(len(batches)), check=0 if self.check else None,
            kept=self.kept, keep=[WHOLE], collected=collected, numbers=range(len(batches)),
        )  # fmt: skip
        self.check = False
        self.dense.take(collected[1])
        self._with_base(self._gathered(losses, parts), parts)

    def _per_pass(self, batches: int) -> int:
        """Batches that go through the blocks together."""
        if self.job.schedule:
            return self.job.schedule.batches_per_pass
        return batches if self.caller.disk else 1

    def _numbers(self) -> list[tuple[int, int]]:
        """Every batch of this process: its number, and its part."""
        parts = [part for part, batches in enumerate(self.batches) for _ in batches]
        return list(enumerate(parts))

    def _rows(self, parts: Sequence[int]) -> list[int]:
        """The places of these parts' sequences among all of this process."""
        lengths = [sum(len(ids_BT) for ids_BT, _ in batches) for batches in self.batches]
        return [sum(lengths[:part]) + s for part in parts for s in range(lengths[part])]

    def _gathered(self, losses: Losses, parts: Sequence[int]) -> Losses:
        """Of all processes, in the order of the sequences."""
        if self.job.ranks.size == 1:
            return losses
        found, start = [], 0
        for part in parts:
            end = start + sum(len(ids_BT) for ids_BT, _ in self.batches[part])
            count = self.parts[part].stop - self.parts[part].start
            found.append(gathered(losses.of(slice(start, end)), count, self.job.ranks))
            start = end
        return Losses.joined(found)

    def _with_base(self, losses: Losses, parts: Sequence[int]) -> Losses:
        """What is known of the whole model is filled in, and what is new is kept."""
        for part, base_S in zip(parts, losses.base_S.split(self._lengths(parts)), strict=True):
            self.base.setdefault(part, base_S)
        return replace(losses, base_S=torch.cat([self.base[part] for part in parts]))

    def _remember(self, masks: Sequence[Mask], parts: Sequence[int], losses: Losses) -> None:
        lengths = self._lengths(parts)
        for mask, nats_S in zip(masks, losses.nats_MS, strict=True):
            sums = [float(part_S.sum()) for part_S in nats_S.split(lengths)]
            self.tried.setdefault(mask, {}).update(zip(parts, sums, strict=True))

    def _lengths(self, parts: Sequence[int]) -> list[int]:
        return [self.parts[part].stop - self.parts[part].start for part in parts]

    def _tokens(self, parts: Iterable[int]) -> int:
        """Predicted tokens."""
        keeps = [self.windows.keep_BT[self.parts[part]] for part in parts]
        return sum(int((keep_BT[:, 1:] & keep_BT[:, :-1]).sum()) for keep_BT in keeps)

    def _as_tried(self, mask: Mask, nats: dict[int, float]) -> Tried:
        tokens = self._tokens(nats)
        return Tried(
            units=sorted(mask),
            nats=sum(nats.values()) / tokens,
            sequences=sum(self._lengths(list(nats))),
            tokens=tokens,
        )
