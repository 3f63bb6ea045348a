"""How important every head and channel is: FLAP, Wanda-sp and LLM-Pruner.

FLAP (2312.11983): the variance of an input of the output projection, times the sum of its squared weights; of attention
squared once more; standardised over all inputs in every block; then averaged over a head.
Wanda-sp (as FLAP compares with it): the mean size of its weights, times the root of the mean over windows of its summed
squares; of attention summed over a head.
LLM-Pruner (2305.11627): the sum of |weight x gradient| over all weights that go with a head or a channel.

Shapes: B sequences, T tokens, F inputs of an output projection, D hidden, K groups.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from shortlm.sweep import BlockGradients, Ranks, widest
from shortlm.units import ATTENTION
from shortlm.width.groups import Groups

PIECE = 2**22  # elements of a weight that are reduced at a time


@dataclass
class InputSums:
    """Sums over the tokens that an output projection has seen, in float64 where the device has it."""

    tokens: int = 0
    windows: int = 0
    sum_F: torch.Tensor = field(default_factory=lambda: torch.zeros(0))
    squares_F: torch.Tensor = field(default_factory=lambda: torch.zeros(0))

    def add(self, x_BTF: torch.Tensor, keep_BT: torch.Tensor) -> None:
        """The inputs of one batch; padding doesn't count."""
        x_NF = x_BTF.reshape(*keep_BT.shape, -1)[keep_BT]  # some FFNs see one row for each token
        wide = widest(x_NF.device)
        if not self.tokens:
            self.sum_F = torch.zeros(x_NF.shape[1], dtype=wide, device=x_NF.device)
            self.squares_F = torch.zeros_like(self.sum_F)
        self.tokens += len(x_NF)
        self.windows += len(keep_BT)
        for part_NF in x_NF.split(max(1, PIECE // x_NF.shape[1])):
            part_NF = part_NF.to(wide)
            self.sum_F += part_NF.sum(0)
            self.squares_F += part_NF.square_().sum(0)

    def all_reduce(self, ranks: Ranks) -> None:
        """Those of all processes."""
        self.tokens, self.windows = int(ranks.total(self.tokens)), int(ranks.total(self.windows))
        for sums in (self.sum_F, self.squares_F):
            ranks.all_reduce(sums)

    @property
    def mean_F(self) -> torch.Tensor:
        """Over tokens."""
        return self.sum_F / self.tokens

    @property
    def variance_F(self) -> torch.Tensor:
        """Over tokens."""
        return (self.squares_F / self.tokens - self.mean_F**2).clamp(min=0)


def flap(groups: Groups, weight_DF: torch.Tensor, sums: InputSums) -> torch.Tensor:
    """FLAP's scores of a branch, standardised, float64 on the CPU."""
    scores_F = (sums.variance_F * _over_outputs(weight_DF, squared=True)).cpu().double()
    if groups.part == ATTENTION:
        scores_F = scores_F**2
    standard_F = (scores_F - scores_F.mean()) / scores_F.std().clamp(min=torch.finfo(torch.float64).tiny)
    return standard_F.view(groups.count, groups.inputs).mean(1)


def wanda_sp(groups: Groups, weight_DF: torch.Tensor, sums: InputSums) -> torch.Tensor:
    """Wanda-sp's scores of a branch, float64 on the CPU."""
    size_F = _over_outputs(weight_DF, squared=False) / len(weight_DF)
    scores_F = (size_F * (sums.squares_F / sums.windows).sqrt()).cpu().double()
    return scores_F.view(groups.count, groups.inputs).sum(1)


def llm_pruner(groups: Groups, block: BlockGradients) -> torch.Tensor:
    """LLM-Pruner's scores of a branch, float64 on the CPU. Biases count for nothing, as there are none there."""
    total_K = torch.zeros(groups.count, dtype=torch.float64)
    for tensor in groups.tensors:
        if tensor.name in block.weights:
            weight, gradient = block.weights[tensor.name].detach(), block.total(tensor.name)
            by_index = _sums(weight, gradient, tensor.axis).cpu().double()
            total_K += by_index.view(groups.count, tensor.each).sum(1)
    return total_K


def _sums(weight: torch.Tensor, gradient: torch.Tensor, axis: int) -> torch.Tensor:
    """The sum of |weight x gradient| at every index along `axis`, some rows at a time."""
    rows = max(1, PIECE // weight[0].numel())
    parts = [(w.float() * g).abs() for w, g in zip(weight.split(rows), gradient.split(rows), strict=True)]
    sums = [part.sum(1 - axis, dtype=widest(weight.device)) for part in parts]
    return torch.cat(sums) if axis == 0 else torch.stack(sums).sum(0)


def _over_outputs(weight_DF: torch.Tensor, squared: bool) -> torch.Tensor:
    """The sum over outputs of the squared, or absolute, weights of every input."""
    total_F = torch.zeros(weight_DF.shape[1], dtype=widest(weight_DF.device), device=weight_DF.device)
    for part in weight_DF.split(max(1, PIECE // weight_DF.shape[1])):
        values = part.float()
        total_F += (values.square() if squared else values.abs()).sum(
            0, dtype=total_F.dtype
        )  # not in place, it may be the weight
    return total_F
