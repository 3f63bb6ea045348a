"""The walk over the blocks that methods score by: forwards for what enters output projections, backwards for gradients.

Shapes: B sequences, T tokens, S sequences in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch

from shortlm.model import Anatomy
from shortlm.progress import track
from shortlm.sweep import BlockCaller, BlockGradients, Job, Side, backward_sweep, batched, noted, share_of
from shortlm.width.criteria import InputSums, llm_pruner
from shortlm.width.groups import Groups, Kept
from shortlm.width.masking import masked
from shortlm.width.methods import Method
from shortlm.width.selection import Counts, Scores, best


class Walk:
    """One model and its windows, and what was found on the way."""

    def __init__(self, job: Job, method: Method, groups: Sequence[Groups]):
        self.job, self.method, self.groups = job, method, groups
        self.anatomy: Anatomy = job.opened.anatomy
        self.caller = BlockCaller(job.opened.model, self.anatomy, job.opened.disk)
        assert job.windows is not None
        mine = job.windows.part(share_of(job.windows, job.ranks))
        self.batches, _ = batched(self.caller, mine, 0, job.schedule)
        self.scores: Scores = {}
        self.means: dict[tuple[int, str], torch.Tensor] = {}

    def run(self, counts: Counts | None) -> Kept | None:
        """Score everything. With `counts` and a method that narrows block by block, what stays is found here too."""
        if self.method.gradients:
            self._backwards()
            return None
        return self._forwards(counts)

    def _forwards(self, counts: Counts | None) -> Kept | None:
        side, kept = Side.of(self.caller, self.batches), Kept()
        for i in track(self.caller.visit(), "statistics", total=len(self.anatomy.blocks)):
            here = [g for g in self.groups if g.block == i]
            self._score(i, here, side, keep=not (self.method.in_turn and here))
            if self.method.in_turn and here:
                assert counts is not None
                kept |= best({(i, g.part): self.scores[i, g.part] for g in here}, counts)
                with masked(self.anatomy, here, kept):
                    side.pass_block(i)
        return kept if self.method.in_turn else None

    def _score(self, i: int, here: Sequence[Groups], side: Side, keep: bool) -> None:
        """The scores of block i's branches; with `keep` the states go behind the block."""
        block, sums = self.anatomy.blocks[i], {g.part: InputSums() for g in here}
        for k, batch in enumerate(side.batches):
            with ExitStack() as hooks:
                seen = {g.part: hooks.enter_context(noted(block.get_submodule(g.output))) for g in here}
                behind_BTD = side.call(i, k)
            for part, of in seen.items():
                sums[part].add(of["input"], batch.keep_BT)
            if keep:
                side.states[k] = behind_BTD
        for g in here:
            sums[g.part].all_reduce(self.job.ranks)
            weight = block.get_parameter(g.tensors[-1].name)
            self.scores[i, g.part] = self.method.by_inputs(g, weight, sums[g.part])
            if self.method.bias:
                self.means[i, g.part] = sums[g.part].mean_F.cpu()

    def _backwards(self) -> None:
        """LLM-Pruner: gradients of the mean cross-entropy of all windows."""
        ranks = self.job.ranks
        tokens = ranks.total(sum(float((keep[:, 1:] & keep[:, :-1]).sum()) for _, keep in self.batches))
        weights_S = torch.full((sum(len(ids) for ids, _ in self.batches),), 1 / tokens)

        def on_block(block: BlockGradients) -> None:
            block.all_reduce(ranks)
            for g in self.groups:
                if g.block == block.index:
                    self.scores[g.block, g.part] = llm_pruner(g, block)

        backward_sweep(self.caller, self.batches, weights_S, on_block)
