"""How important every head and channel is: FLAP, Wanda-sp and LLM-Pruner.

FLAP (2312.11983): the variance of an input of the output projection, times the sum of its squared weights; of attention
squared once more and averaged over a head; then standardised in every block.
Wanda-sp (as FLAP compares with it): the mean size of its weights, times the root of the mean over windows of its summed
squares; of attention summed over a head.
LLM-Pruner (2305.11627): the sum of |weight x gradient| over all weights that go with a head or a channel.

Shapes: B sequences, T tokens, F inputs of an output projection, D hidden, K groups.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

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
        x_NF = x_BTF[keep_BT]
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
    scores_K = scores_F.view(groups.count, groups.inputs).mean(1)
    if groups.count < 2:
        return torch.zeros_like(scores_K)
    return (scores_K - scores_K.mean()) / scores_K.std().clamp(min=torch.finfo(torch.float64).tiny)


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
            by_group = _by_group(block.weights[tensor.name].detach(), tensor.axis, tensor.each)
            of_gradient = _by_group(block.total(tensor.name), tensor.axis, tensor.each)
            for k, (weight, gradient) in enumerate(zip(by_group, of_gradient, strict=True)):
                total_K[k] += float((weight.float() * gradient).abs_().sum(dtype=widest(weight.device)))
    return total_K


def _by_group(weight: torch.Tensor, axis: int, each: int) -> Any:
    return weight.split(each, dim=axis)


def _over_outputs(weight_DF: torch.Tensor, squared: bool) -> torch.Tensor:
    """The sum over outputs of the squared, or absolute, weights of every input."""
    total_F = torch.zeros(weight_DF.shape[1], dtype=widest(weight_DF.device), device=weight_DF.device)
    for part in weight_DF.split(max(1, PIECE // weight_DF.shape[1])):
        values = part.float()
        total_F += (values.square() if squared else values.abs()).sum(
            0, dtype=total_F.dtype
        )  # not in place, it may be the weight
    return total_F
