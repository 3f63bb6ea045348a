"""Block after block: the cut model, as repaired so far, is brought near the dense model's states.

`refit` (ours) frees all of a block's output projection, `linear` (ReplaceMe, 2505.02819) a D x D map behind it, `scale`
(Prune&Comp, 2507.18212) one number for all that was written so far. A ridge, or no change at all, is chosen for every
weight by windows that it wasn't fitted on.

Shapes: B sequences, T tokens, D hidden, F inputs of an output projection, N tokens that count.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import torch

from shortlm.artifacts import Depth, Fold
from shortlm.model import Projection, output_projection
from shortlm.progress import track
from shortlm.recipe import RepairSettings
from shortlm.repair.branch_form import norm_behind
from shortlm.repair.counting import counting
from shortlm.repair.examples import Examples
from shortlm.repair.kept_weights import KeptWeights
from shortlm.repair.methods import Repair
from shortlm.repair.normal_equations import refuse_singular
from shortlm.repair.pairing import Pairing
from shortlm.sweep import Ranks, Side
from shortlm.sweep.decisions import KEEP, WITHOUT_FFN
from shortlm.units import ATTENTION, FFN, Unit

States = list[torch.Tensor]
Stored = Callable[[int, str], torch.dtype]  # the type that the files hold a tensor of a block in


@dataclass
class Fitting:
    """Both models with all windows: those to fit on, and from `fitted` on those for validation."""

    dense: Side
    repaired: Side
    untouched: Side  # the cut model as it was, in validation
    fitted: int
    pairing: Pairing
    how: Repair
    settings: RepairSettings
    ranks: Ranks
    kept: KeptWeights
    stored: Stored
    folds: list[Fold] = field(default_factory=list)
    depths: list[Depth] = field(default_factory=list)
    norms: dict[tuple[int, str], str] = field(default_factory=dict)  # what norms a branch's output, where that is asked

    def __post_init__(self) -> None:
        self.visiting: Generator[int, None, None] = self.repaired.caller.visit()
        self.reached = 0  # blocks of the cut model that are behind us
        self.after_attention: States = []

    def wants_attention(self, i: int) -> bool:
        """Whether the dense model's states behind the attention of its block i are asked for."""
        j = self.reached
        here = j < len(self.pairing.blocks) and i == self.pairing.blocks[j] and j >= self.pairing.first
        return here and ATTENTION in self._parts(j) and bool(self._ffn(j))

    def behind(self, i: int, after_attention: States) -> None:
        """The dense states are behind block i: fit the weights of the block of the cut model that belongs here."""
        j = self.reached
        if j == len(self.pairing.blocks):
            return
        if i == self.pairing.blocks[j]:
            self.after_attention = after_attention
        if i + 1 != self.pairing.next_place(j):
            return
        assert next(self.visiting) == j
        self.untouched.pass_block(j)
        for part in self._parts(j) if j >= self.pairing.first else []:
            self._fit(j, part, self.after_attention if part == ATTENTION and self._ffn(j) else self.dense.states)
        self.after_attention = []
        self._pass(j)
        self.reached += 1

    def close(self) -> None:
        """The last block is left."""
        self.visiting.close()

    def _parts(self, j: int) -> list[str]:
        """Whose output projections are solved for: what a cut has left out is not brought back."""
        if not self.how.solves or not (self.how.everywhere or self.pairing.is_before_gap(j)):
            return []
        wanted = self.how.parts if self._ffn(j) else (ATTENTION,)
        anatomy = self.repaired.caller.branches.anatomy
        return [
            part for part in wanted
            if Unit(j, part) not in self.pairing.left_out and output_projection(anatomy, j, part)
        ]  # fmt: skip

    def _ffn(self, j: int) -> list[str]:
        gone = Unit(j, FFN) in self.pairing.left_out
        return [] if gone else self.repaired.caller.branches.anatomy.ffn[j]

    def _fit(self, j: int, part: str, wanted: States) -> None:
        projection = output_projection(self.repaired.caller.branches.anatomy, j, part)
        assert projection is not None
        decision = WITHOUT_FFN if part == ATTENTION and self._ffn(j) else KEEP
        if there := self.kept.read(j, part):
            fold, tensors = there
            for name, tensor in tensors.items():
                _put(projection, name, tensor)
        else:
            fold = self._solved(j, part, projection, decision, wanted)
            if fold.ridge is not None:
                tensors = {f"{projection.path}.weight": projection.module.weight}
                if self.how.solves == "linear" and projection.module.bias is not None:
                    tensors[f"{projection.path}.bias"] = projection.module.bias
                self.kept.keep(
                    fold, {n: t.to(self.stored(j, n)) for n, t in tensors.items()}
                )  # fmt: skip
        self.folds.append(fold)

    def _solved(self, j: int, part: str, projection: Projection, decision: int, wanted: States) -> Fold:
        """The projection is left with the best weight that was found."""
        before, best, chosen = self._error(j, decision, wanted), None, None
        if not before:  # nothing is missing before it: the attention of the block before the first gap
            return Fold(block=j, part=part, error_before=0, error_after=0)
        examples = Examples(self, j, part, projection, decision, wanted)
        weight_FD = projection.applied().clone()
        bias_D = None if projection.module.bias is None else projection.module.bias.clone()
        least, solvable = before, False
        for ridge, change in self._changes(examples):
            solvable = True
            weights = self._changed(j, projection, weight_FD, bias_D, change)
            del change  # F x D in float64, not to be held beside the next one
            error = self._error(j, decision, wanted)
            if error < least or not self.how.ridge:
                least, best, chosen = error, weights, ridge
        if not solvable:
            raise refuse_singular(f"{part} of block {j}", examples.tokens, examples.unknowns)
        _set(projection, *(best or (weight_FD, bias_D)))
        return Fold(
            block=j, part=part, ridge=chosen, unknowns=examples.unknowns, tokens=examples.tokens,
            error_before=before, error_after=least,
        )  # fmt: skip

    def _changes(self, examples: Examples) -> Iterator[tuple[float, torch.Tensor]]:
        """What may be done to the weight, by the ridge; where the system is singular, nothing."""
        if self.how.objective == "cosine":
            yield 0.0, examples.cosine()
            return
        equations = examples.equations()
        for ridge in self.settings.ridges if self.how.ridge else [0.0]:
            change = equations.solved(ridge)
            if change is not None:
                yield ridge, change
            del change  # before the next one

    def _changed(
        self, j: int, projection: Projection, weight_FD: torch.Tensor, bias_D: torch.Tensor | None, change: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Put the changed weight (and bias) in place, rounded as the files will hold it."""
        linear, kind = self.how.solves == "linear", self.stored(j, f"{projection.path}.weight")
        new_FD = weight_FD.to(change.dtype) @ change if linear else change
        new_FD = new_FD.add_(weight_FD).to(kind).to(weight_FD.dtype)
        if linear and bias_D is not None:
            bias_D = (bias_D + bias_D.to(change.dtype) @ change).to(kind).to(weight_FD.dtype)
        _set(projection, new_FD, bias_D)
        return new_FD, bias_D

    def _error(self, j: int, decision: int, wanted: States) -> float:
        """Validation: squared distance behind block j to the wanted states, over their squared size."""
        found = [self.repaired.call(j, k, decision) for k in range(self.fitted, len(wanted))]
        return self._distance(found, wanted[self.fitted :])

    def _distance(self, found: States, wanted: States) -> float:
        sums = torch.zeros(2, dtype=torch.float64)
        for n, (found_BTD, wanted_BTD) in enumerate(zip(found, wanted, strict=True), start=self.fitted):
            counted_BT = counting(wanted_BTD, self.dense.batches[n])
            apart_ND = (found_BTD.float() - wanted_BTD.float())[counted_BT]
            wanted_ND = wanted_BTD.float()[counted_BT]
            if self.settings.weighting == "norm":
                size_N1 = wanted_ND.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-12)
                gain_D = self._final_gain(wanted_ND)
                apart_ND, wanted_ND = apart_ND / size_N1 * gain_D, wanted_ND / size_N1 * gain_D
            sums += torch.stack([apart_ND.double().square().sum(), wanted_ND.double().square().sum()]).cpu()
        self.ranks.all_reduce(sums)
        return float(sums[0] / sums[1].clamp_min(1e-300))

    def _final_gain(self, like_ND: torch.Tensor) -> torch.Tensor:
        """What the final norm multiplies every channel by."""
        norm = self.repaired.caller.norm
        signs_1D = torch.ones(1, like_ND.shape[-1], device=like_ND.device)
        if norm is None:
            return signs_1D[0]
        signs_1D[:, ::2] = -1
        return ((norm(signs_1D) - norm(-signs_1D))[0] / 2).abs().float()

    def _pass(self, j: int) -> None:
        """All windows go through block j as repaired, those of validation also as it was."""
        self.repaired.pass_block(j)
        wanted = self.dense.states[self.fitted :]
        if self.how.scales:
            self._note_norms(j)
        if self.how.scales and self.pairing.is_before_gap(j):
            self._scale(j)
        self.depths.append(
            Depth(
                block=j,
                cut=self._distance(self.untouched.states, wanted),
                repaired=self._distance(self.repaired.states[self.fitted :], wanted),
            )
        )

    def _note_norms(self, j: int) -> None:
        for part in (ATTENTION, FFN):
            projection = output_projection(self.repaired.caller.branches.anatomy, j, part)
            if projection and (norm := norm_behind(self.repaired, j, projection)):
                self.norms[j, part] = norm

    def _scale(self, j: int) -> None:
        """The mean over channels of |Y| / |X|, each a mean over tokens; Prune&Comp, equation of alpha."""
        before = self._distance(self.repaired.states[self.fitted :], self.dense.states[self.fitted :])
        width = self.repaired.states[0].shape[-1]
        sums_2D, tokens = torch.zeros(2, width, dtype=torch.float64), 0
        for k in range(self.fitted):
            counted_BT = counting(self.dense.states[k], self.dense.batches[k])
            pair = (self.dense.states[k], self.repaired.states[k])
            sums_2D += torch.stack([h_BTD[counted_BT].abs().double().sum(0).cpu() for h_BTD in pair])
            tokens += int(counted_BT.sum())
        self.ranks.all_reduce(sums_2D)
        factor = float((sums_2D[0] / sums_2D[1].clamp_min(1e-300)).mean())
        for k, h_BTD in enumerate(self.repaired.states):
            self.repaired.states[k] = (h_BTD * factor).to(h_BTD.dtype)
        after = self._distance(self.repaired.states[self.fitted :], self.dense.states[self.fitted :])
        tokens = int(self.ranks.total(tokens))
        self.folds.append(
            Fold(block=j, part="block", factor=factor, tokens=tokens, error_before=before, error_after=after)
        )


def fit_beside(dense: Side, fittings: Sequence[Fitting]) -> None:
    """Once through the dense model, and beside it through every cut one; all states are behind the last blocks then."""
    total = len(dense.caller.blocks)
    with closing(dense.caller.visit()) as visiting, torch.no_grad(), track(what="repair", total=total) as bar:
        for i in visiting:
            after: States = []
            if any(fitting.wants_attention(i) for fitting in fittings):
                after = [dense.call(i, k, WITHOUT_FFN) for k in range(len(dense.batches))]
            dense.pass_block(i)
            for fitting in fittings:
                fitting.behind(i, after)
            bar.update(1)
    for fitting in fittings:
        fitting.close()


def _set(projection: Projection, weight_FD: torch.Tensor, bias_D: torch.Tensor | None) -> None:
    projection.module._parameters["weight"] = torch.nn.Parameter(
        projection.as_stored(weight_FD).contiguous(), requires_grad=False
    )
    if bias_D is not None:
        projection.module._parameters["bias"] = torch.nn.Parameter(bias_D, requires_grad=False)


def _put(projection: Projection, name: str, tensor: torch.Tensor) -> None:
    """A tensor by its path in the block, as it is stored."""
    leaf, old = name.rpartition(".")[2], projection.module.weight
    new = tensor.to(old.device, old.dtype)
    projection.module._parameters[leaf] = torch.nn.Parameter(new, requires_grad=False)
