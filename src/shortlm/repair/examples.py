"""What one weight is fitted on: its inputs, and what its outputs lack, over the windows to fit on.

Shapes: B sequences, T tokens, D hidden, F inputs of the weight, N tokens that count.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch

from shortlm.errors import RepairError
from shortlm.model import Projection
from shortlm.repair.branch_form import BranchForm, shaped
from shortlm.repair.cosine import Branch, cosine_map
from shortlm.repair.counting import counting
from shortlm.repair.normal_equations import NormalEquations
from shortlm.sweep import noted
from shortlm.sweep.decisions import WITHOUT_FFN
from shortlm.units import ATTENTION

if TYPE_CHECKING:
    from shortlm.repair.fitting import Fitting


class _Call(NamedTuple):
    """One batch through block j as far as the weight's branch."""

    k: int
    input_BTF: torch.Tensor
    m_BTD: torch.Tensor  # the weight's outputs
    out_BTD: torch.Tensor


class Examples:
    """Of the output projection of a part of block j, whose outputs are to come to the `wanted` states."""

    def __init__(
        self, fitting: Fitting, j: int, part: str, projection: Projection, decision: int, wanted: list[torch.Tensor]
    ):
        self.fitting, self.j, self.part, self.projection = fitting, j, part, projection
        self.decision, self.wanted, self.side = decision, wanted, fitting.repaired
        self.width = self.side.states[0].shape[-1]
        self.is_map = fitting.how.solves == "linear"  # of D x D behind the weight
        self.unknowns = self.width if self.is_map else projection.width
        self.form, self.tokens = BranchForm.of(self.side, j, decision, projection), 0

    def equations(self) -> NormalEquations:
        """The sums over all windows and processes."""
        equations = NormalEquations(self.unknowns, self.width, self.side.caller.device)
        for call in self._calls():
            counted_BT = counting(self.wanted[call.k], self.side.batches[call.k])
            input_NF = (call.m_BTD if self.is_map else call.input_BTF)[counted_BT]
            lacking_ND = self._lacking(call)[counted_BT]
            if self.fitting.settings.weighting == "norm":
                wanted_ND = self.wanted[call.k][counted_BT].double()
                size_N1 = wanted_ND.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-12)
                input_NF, lacking_ND = input_NF / size_N1, lacking_ND / size_N1
            equations.add(input_NF, lacking_ND)
        equations.all_reduce(self.fitting.ranks)
        self.tokens = equations.tokens
        return equations

    def cosine(self) -> torch.Tensor:
        """The change of a map behind the weight. Raises RepairError where the branch is normed before it is added."""
        if self.form.slope is None:
            raise RepairError(
                "linear:objective=cosine: is for blocks that add their branch as it is, and this architecture norms "
                "it first; take refit or linear"
            )
        counts = [counting(h_BTD, self.side.batches[k]).sum() for k, h_BTD in enumerate(self.wanted[: self._fitted])]
        self.tokens = int(self.fitting.ranks.total(float(sum(counts))))
        return cosine_map(self._branches, self.width, self.fitting.ranks, self.side.caller.device)

    @property
    def _fitted(self) -> int:
        return self.fitting.fitted

    def _calls(self) -> Iterator[_Call]:
        for k in range(self._fitted):
            with noted(self.projection.module) as seen:
                out_BTD = self.side.call(self.j, k, self.decision)
            batch = self.side.batches[k]
            yield _Call(k, shaped(seen["input"], batch), shaped(seen["output"], batch), out_BTD)

    def _lacking(self, call: _Call) -> torch.Tensor:
        without = None
        if self.form.slope is None:
            at_attention = self.part == ATTENTION
            without = self.side.states[call.k] if at_attention else self.side.call(self.j, call.k, WITHOUT_FFN)
        return self.form.lacking(call.out_BTD, without, call.m_BTD, self.wanted[call.k])

    def _branches(self) -> Iterator[Branch]:
        assert self.form.slope is not None
        for call in self._calls():
            counted_BT = counting(self.wanted[call.k], self.side.batches[call.k])
            scaled_ND = call.m_BTD[counted_BT] * self.form.slope
            yield Branch(call.out_BTD[counted_BT] - scaled_ND, scaled_ND, self.wanted[call.k][counted_BT])
