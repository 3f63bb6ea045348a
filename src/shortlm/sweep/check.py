"""The model's own forward on some sequences: what the walk over single blocks is held to.

The sweep trusts that blocks hand on nothing but the hidden state. So before it begins, the first sequences of its
batches go through the model's own forward, whole and without the blocks of one mask drawn at random, as many together
as one call of a block holds. With blocks on disk one such call is made, since each reads all blocks.

The losses may differ by rounding, whose size is asked of the model: how far its losses move when the last state is
moved at random by as much as rounding moves it, once for each of the 2 L sums that make it.

Shapes: P probes (a sequence, whole or masked), B sequences, T tokens, D hidden.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from shortlm.errors import ModelError
from shortlm.sweep.blocks import Batch, BlockCaller, predicted
from shortlm.sweep.decisions import DROP, KEEP, Path
from shortlm.sweep.tail import Tail

CHECKED = 16  # batches of a sweep, spread over it
DEVIATIONS = 10  # standard deviations of rounding that are allowed
EXACT = 1e-5  # and this share of the loss


@dataclass(frozen=True)
class Probe:
    """The first sequence of a batch, whole or masked, with the model's own loss and how far it may be missed."""

    batch: int
    masked: bool
    nats: float = 0.0
    allowed: float = 0.0


class Check:
    """The probes of one sweep, computed when it is made."""

    def __init__(
        self, caller: BlockCaller, batches: Sequence[tuple[torch.Tensor, torch.Tensor]], masks: int, seed: int
    ):
        self.caller, self.batches = caller, batches
        self.drawn = random.Random(seed).randrange(masks) if masks else None

    def computed(self, path: Path) -> list[Probe]:
        """All probes by the model's own forward; `path` is that of the mask drawn."""
        room, probes = len(self.batches[0][0]), self._probes()
        probes = _spread(
            probes, checked_sequences(len(self.batches), self.drawn is not None, room, bool(self.caller.disk))
        )
        groups = [probes[start : start + room] for start in range(0, len(probes), room)]
        return [probe for group in groups for probe in self._forward(group, path)]

    def _probes(self) -> list[Probe]:
        kinds = (False,) if self.drawn is None else (False, True)
        return [Probe(k, masked) for k in _spread(range(len(self.batches)), CHECKED) for masked in kinds]

    def _forward(self, probes: list[Probe], path: Path) -> list[Probe]:
        whole_P = torch.tensor([not probe.masked for probe in probes], device=self.caller.device)[:, None, None]

        def without(i: int, in_PTD: torch.Tensor, behind: Callable[[int], torch.Tensor]) -> torch.Tensor:
            out_PTD = behind(KEEP)
            if path[i] == KEEP:
                return out_PTD
            return torch.where(whole_P, out_PTD, in_PTD if path[i] == DROP else behind(path[i]))

        self.caller.begin_pass()
        ids_PT, keep_PT = (torch.cat([self.batches[p.batch][part][:1] for p in probes]) for part in (0, 1))
        batch, tail = Batch.of(ids_PT.to(self.caller.device), keep_PT.to(self.caller.device)), Tail(self.caller)
        last_PTD = self.caller.own_forward(batch, without)
        with tail.loaded():
            own_PT = tail.nats(last_PTD, batch).cpu()
            moved_PT = tail.nats(_rounded(last_PTD, len(self.caller.blocks)), batch).cpu()
        tokens_P = predicted(batch).sum(1).cpu()
        rounding = float((moved_PT - own_PT).square().sum() / tokens_P.sum()) ** 0.5
        sums, counts = own_PT.sum(1).tolist(), tokens_P.tolist()
        return [
            Probe(p.batch, p.masked, nats, DEVIATIONS * rounding * count**0.5 + EXACT * abs(nats))
            for p, nats, count in zip(probes, sums, counts, strict=True)
        ]  # fmt: skip


def checked_sequences(batches: int, masked: bool, room: int, streamed: bool) -> int:
    """How many sequences go through the model's own forward; `room` of them at a time."""
    probes = min(CHECKED, batches) * (1 + masked)
    return min(room, probes) if streamed else probes


def compare(probes: list[Probe], walked: Callable[[int, bool], float], model_type: str) -> None:
    """Raise ModelError unless the sweep's own losses, walked(batch, masked), are those of the probes."""
    for probe in probes:
        found = walked(probe.batch, probe.masked)
        if not abs(found - probe.nats) <= probe.allowed:
            raise ModelError(
                f"{model_type}: the loss by single blocks ({found:.6g}) is not the model's own ({probe.nats:.6g}); "
                "its blocks depend on one another, so it can't be scored this way"
            )


def _spread(items: Sequence, most: int) -> list:
    """At most so many of the items, from the first one on."""
    count = min(most, len(items))
    return [items[len(items) * k // count] for k in range(count)]


def _rounded(last_PTD: torch.Tensor, n_blocks: int) -> torch.Tensor:
    """The last state moved as rounding moves it, whose unit is half the distance of 1 to the next number."""
    size = torch.finfo(last_PTD.dtype).eps / 2 * (2 * n_blocks) ** 0.5
    noise_PTD = torch.randn(last_PTD.shape, generator=torch.Generator().manual_seed(0)).to(last_PTD.device)
    return (last_PTD.float() * (1 + size * noise_PTD)).to(last_PTD.dtype)
