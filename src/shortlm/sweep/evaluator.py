"""The losses of sets of units on one text, for methods that ask the model: what was asked, and what it took."""

from __future__ import annotations

from collections.abc import Sequence

from shortlm.artifacts import Search, Tried
from shortlm.sweep.blocks import BlockCaller
from shortlm.sweep.forward import Losses, gathered, sweep
from shortlm.sweep.job import Job
from shortlm.sweep.kept import KeptPrefixes
from shortlm.sweep.scheduler import Batches, batched
from shortlm.text import Windows
from shortlm.units import Mask


class Evaluator:
    """Evaluates masks over a job's sequences; all processes call it with the same masks.

    `kept_bytes` may be held from call to call by states of the masks that a call names in `keep`.
    """

    def __init__(self, job: Job, batch_size: int = 0, check: bool = True, kept_bytes: int = 0):
        assert job.windows is not None
        self.job, self.windows, self.batch_size = job, job.windows, batch_size
        self.caller = BlockCaller(job.opened.model, job.opened.anatomy, job.opened.disk)
        self.n_blocks, self.sequences = len(self.caller.blocks), len(self.windows.ids_BT)
        self.check = check  # the first call is compared with the model's own forward
        self.kept = KeptPrefixes(kept_bytes) if kept_bytes else None
        self.base = (0.0, 0)  # nats and tokens of the whole model
        self.tried: dict[Mask, Tried] = {}

    def losses(
        self, masks: Sequence[Mask], part: slice = slice(None), per_token: bool = False, keep: Sequence[Mask] = ()
    ) -> Losses:
        """Of the whole model and without the units of each mask, on a part of the sequences (all of them)."""
        every, whole = part == slice(None), self.windows.part(part)
        batches, per_pass = self._batches(whole)
        schedule = self.job.schedule
        losses = gathered(
            sweep(
                self.caller, batches, masks, per_pass=per_pass, per_token=per_token, check=0 if self.check else None,
                most=schedule.most if schedule else None, kept=self.kept if every else None, keep=keep,
            ),
            len(whole.ids_BT), self.job.ranks,
        )  # fmt: skip
        self.check = False
        if every:
            self.base, self.tried = (0.0, 0), {mask: t for mask, t in self.tried.items() if mask not in set(masks)}
        self._remember(masks, losses)
        return losses

    def batches(self, parts: Sequence[slice]) -> int:
        """Of all processes, for these parts of the sequences."""
        return int(self.job.ranks.total(sum(len(self._batches(self.windows.part(part))[0]) for part in parts)))

    def _batches(self, whole: Windows) -> tuple[Batches, int]:
        """Of this process's share, and how many go through the blocks in one pass."""
        mine = whole.part(self.job.ranks.share(len(whole.ids_BT)))
        return batched(self.caller, mine, self.batch_size, self.job.schedule)

    def search(self) -> Search:
        """What was asked so far."""
        nats, tokens = self.base
        return Search(
            base_nats=nats / max(1, tokens), tried=list(self.tried.values()),
            block_forwards=int(self.job.ranks.total(self.caller.forwards)), data=self.windows.facts,
        )  # fmt: skip

    def _remember(self, masks: Sequence[Mask], losses: Losses) -> None:
        """Sums over parts that were asked for one after the other."""
        count, tokens = len(losses.tokens_S), int(losses.tokens_S.sum())
        self.base = (self.base[0] + float(losses.base_S.sum()), self.base[1] + tokens)
        for mask, nats in zip(masks, losses.nats_MS.sum(1).tolist(), strict=True):
            before = self.tried.get(mask) or Tried(units=sorted(mask), nats=0.0, sequences=0, tokens=0)
            self.tried[mask] = Tried(
                units=before.units, sequences=before.sequences + count, tokens=before.tokens + tokens,
                nats=(before.nats * before.tokens + nats) / (before.tokens + tokens),
            )  # fmt: skip
