"""Several processes on one job: each sweeps its share of the sequences, and all agree on the result.

torchrun and accelerate launch tell every process its place (RANK, WORLD_SIZE) in the environment. Collected are
per-sequence values (put one behind the other in the order of the sequences) and, for taylor, each block's
gradients (summed). With one process nothing is sent and nothing changes.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from shortlm.errors import RankError

MEETING = timedelta(minutes=10)  # how long ranks wait for one another at the start
PATIENCE = timedelta(hours=2)  # and for a slower one later; a dead one is noticed at once
PIECE = 2**24  # elements that are summed at a time


class Ranks:
    """This process among `size`; number `rank`."""

    def __init__(self, rank: int = 0, size: int = 1):
        self.rank, self.size = rank, size

    def share(self, count: int, rank: int | None = None) -> slice:
        """The sequences of a rank (this one), of `count` in all; shares differ by one at most."""
        rank = self.rank if rank is None else rank
        return slice(count * rank // self.size, count * (rank + 1) // self.size)

    def all_gather(self, part: torch.Tensor, count: int, dim: int = 0) -> torch.Tensor:
        """Every rank's values of its share, put together along `dim`, which then has length `count`. On the CPU."""
        if self.size == 1:
            return part
        lengths = [len(range(count)[self.share(count, rank)]) for rank in range(self.size)]
        rows = part.cpu().movedim(dim, 0).contiguous()
        padded = rows.new_zeros(max(lengths), *rows.shape[1:])
        padded[: len(rows)] = rows
        gathered = [torch.empty_like(padded) for _ in lengths]
        with distributed_errors():
            dist.all_gather(gathered, padded)
        whole = torch.cat([values[:length] for values, length in zip(gathered, lengths, strict=True)])
        return whole.movedim(0, dim)

    def all_reduce(self, tensor: torch.Tensor) -> None:
        """The sum over all ranks, in place, a piece at a time; by way of the CPU, where a dead rank is noticed."""
        for piece in tensor.view(-1).split(PIECE) if self.size > 1 else ():
            total = piece.cpu()
            with distributed_errors():
                dist.all_reduce(total)
            piece.copy_(total)

    def most(self, number: float) -> float:
        """The largest of every rank's number."""
        numbers = self.all_gather(torch.tensor([float(number)], dtype=torch.float64), self.size)
        return float(numbers.max())

    def total(self, number: float) -> float:
        """The sum of every rank's number."""
        total = torch.tensor(float(number), dtype=torch.float64)
        self.all_reduce(total)
        return float(total)


@contextmanager
def joined_ranks() -> Generator[Ranks, None, None]:
    """The ranks that torchrun or accelerate launch has started, connected; one alone without them.

    Raises RankError if another rank ends or can't be reached.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or dist.is_initialized():
        yield Ranks() if size == 1 else Ranks(dist.get_rank(), dist.get_world_size())
        return
    with distributed_errors():
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        store, rank, size = next(dist.rendezvous("env://", timeout=MEETING))
        store.set_timeout(MEETING)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    try:
        yield Ranks(dist.get_rank(), size)
        with distributed_errors():
            dist.barrier()  # no result is written before all have come to the end
    finally:
        dist.destroy_process_group()


@contextmanager
def distributed_errors(consequence: str = "nothing was written; ") -> Generator[None, None, None]:
    """What torch.distributed raises when another process has ended, as RankError."""
    try:
        yield
    except (RuntimeError, ValueError) as error:  # what torch.distributed raises
        reason = str(error).strip().splitlines()[0][:200]
        raise RankError(
            f"another process of this job has ended or can't be reached ({reason}); "
            f"{consequence}its own message tells why"
        ) from error
