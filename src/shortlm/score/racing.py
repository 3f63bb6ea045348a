"""A race: which k blocks are the least important by perplexity, with fewer block forwards than scoring all of them.

The sequences come in rounds. After each one, a block that is clearly worse than the k-th best leaves, and one that
is clearly better than the (k+1)-th best is settled; both are no longer computed. "Clearly" is a paired
comparison, token by token on the same sequences, of how the mean over *all* the sequences could still differ: what
has been seen can't change any more, so the margin shrinks to nothing as the last sequences come.

Shapes: C candidates, S sequences seen so far, T tokens, N sequences in all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from math import exp, inf

import torch

from shortlm.artifacts import CriterionScores, Race
from shortlm.errors import PlanError, ScoreError
from shortlm.recipe import ScoreSettings
from shortlm.score.trust import perplexity_of, refuse_no_number
from shortlm.statistics import mean_stderr
from shortlm.sweep import BlockCaller, Plan, Ranks, batched, gathered, sweep
from shortlm.text import Windows
from shortlm.units import blocks_mask, protected_blocks

ROUNDS = 16
ROUNDS_FROM_DISK = 4  # each round reads all blocks
MARGIN = 3.0  # standard errors; benchmarks/race.py measures how often the choice is that of the full sweep


def refuse_unraceable(settings: ScoreSettings) -> None:
    """Raise ScoreError unless perplexity alone is asked for, whose sequences are comparable token by token."""
    if settings.select and settings.criteria != ["ppl"]:
        raise ScoreError(
            f"--select {settings.select}: a race is by ppl alone; give --criteria ppl, or leave --select out"
        )


@dataclass
class Field:
    """Who is still racing, and every token's loss without each of them."""

    wanted: int
    total: int  # sequences in all
    racing: list[int]
    settled: list[int] = field(default_factory=list)
    nats_CST: torch.Tensor = field(default_factory=lambda: torch.empty(0))

    def seen(self, nats_CST: torch.Tensor) -> None:
        """More sequences have been computed for all that race."""
        self.nats_CST = torch.cat([self.nats_CST, nats_CST], dim=1) if len(self.nats_CST) else nats_CST

    def thin_out(self) -> None:
        """Let go who is clearly worse than the last place wanted, settle who is clearly better than the next."""
        wanted = self.wanted - len(self.settled)
        if 0 < wanted < len(self.racing):
            order = self.nats_CST.sum((1, 2)).argsort(stable=True).tolist()
            inside, outside = order[:wanted], order[wanted:]
            worse = {c for c in outside if self._clearly(inside[-1], c)}
            better = {c for c in inside if self._clearly(c, outside[0])}
            self.settled += [self.racing[c] for c in better]
            self._keep([c for c in range(len(self.racing)) if c not in worse | better])
        if self.wanted - len(self.settled) == len(self.racing):
            self.settled, self.racing = [*self.settled, *self.racing], []
        elif len(self.settled) == self.wanted:
            self.racing = []

    def _clearly(self, better: int, worse: int) -> bool:
        """The larger of two standard errors counts: over tokens, and over sequences (whose tokens go together)."""
        difference_ST = self.nats_CST[worse] - self.nats_CST[better]
        samples = (difference_ST.flatten(), difference_ST.mean(1))
        error = max(float(mean_stderr(sample[None])) if len(sample) > 1 else inf for sample in samples)
        left = 1 - len(difference_ST) / self.total
        return float(difference_ST.mean()) > MARGIN * error * left**0.5

    def _keep(self, candidates: list[int]) -> None:
        self.racing = [self.racing[c] for c in candidates]
        self.nats_CST = self.nats_CST[candidates]


def race(
    caller: BlockCaller, windows: Windows, settings: ScoreSettings, ranks: Ranks, plan: Plan | None = None
) -> tuple[dict[str, CriterionScores], float]:
    """Scores by perplexity, each from the sequences that block has run in, and the whole model's perplexity.

    Protected blocks are scored in the first round only. Raises PlanError if there is nothing to choose from.
    """
    n_blocks, count = len(caller.blocks), len(windows.ids_BT)
    wanted, rule = settings.race()
    protected = protected_blocks(rule, n_blocks)
    free = [i for i in range(n_blocks) if i not in protected]
    if not wanted < len(free):
        raise PlanError(f"--select {wanted}: {len(free)} blocks may go (protected: {rule}); select fewer")
    ground = Field(wanted, count, free)
    nats_L, seen_L, tokens_L = torch.zeros(n_blocks, dtype=torch.float64), [0] * n_blocks, [0.0] * n_blocks
    tokens = nats = 0.0
    rounds = _rounds(count, ranks.size, ROUNDS_FROM_DISK if caller.disk else ROUNDS)
    parts = [windows.part(slice(*bounds)).part(ranks.share(bounds[1] - bounds[0])) for bounds in rounds]
    work = [batched(caller, mine, settings.batch_size, plan) for mine in parts]
    for (start, stop), (batches, per_pass) in zip(rounds, work, strict=True):
        running = ground.racing if start else list(range(n_blocks))
        masks = [blocks_mask([i]) for i in running]
        local = sweep(
            caller,
            batches,
            masks,
            per_pass=per_pass,
            per_token=True,
            check=0 if settings.check and not start else None,
            most=plan.most if plan else None,
        )
        losses = gathered(local, stop - start, ranks)
        assert losses.each_MST is not None
        perplexity_of(losses)
        nats, tokens = nats + float(losses.base_S.sum()), tokens + float(losses.tokens_S.sum())
        for row, i in enumerate(running):
            nats_L[i] += losses.nats_MS[row].sum()
            seen_L[i], tokens_L[i] = seen_L[i] + stop - start, tokens
        ground.seen(losses.each_MST[[running.index(i) for i in ground.racing]])
        ground.thin_out()
        if not ground.racing:
            break
    selected = _selected(ground, nats_L)
    full = n_blocks * (n_blocks + 1) // 2 * int(ranks.total(sum(len(batches) for batches, _ in work)))
    scores = (nats_L / torch.tensor(tokens_L, dtype=torch.float64)).exp().tolist()
    refuse_no_number("ppl", scores)
    found = Race(selected=selected, protected=protected, sequences=seen_L, block_forwards_full=full)
    result = CriterionScores(scores=scores, unit="perplexity", race=found)
    return {"ppl": result}, exp(nats / tokens)


def _rounds(count: int, processes: int, most: int) -> list[tuple[int, int]]:
    """Where each round starts and stops: equal shares, with a sequence for every process."""
    rounds = max(1, min(most, count // processes))
    bounds = [count * r // rounds for r in range(rounds + 1)]
    return list(pairwise(bounds))


def _selected(ground: Field, nats_L: torch.Tensor) -> list[int]:
    """Those settled, and the best of those that ran to the end."""
    rest = sorted(ground.racing, key=lambda i: (float(nats_L[i]), i))
    return sorted([*ground.settled, *rest[: ground.wanted - len(ground.settled)]])
