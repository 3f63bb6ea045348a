"""ReplaceMe's other objective (2505.02819): a map T behind a weight, by gradient steps on the cosine to dense states.

What is made small is the mean over tokens of 1 - cos(r + s m T, Y): r is what the block adds its branch to, m the
branch, s the factor it is added by. Published: Adam at 1e-4 for 10 epochs, from T = I.

Shapes: N tokens, D hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch.nn.functional import cosine_similarity

from shortlm.sweep import Ranks

RATE, EPOCHS = 1e-4, 10


class Branch(NamedTuple):
    """Of one batch of tokens."""

    rest_ND: torch.Tensor
    scaled_ND: torch.Tensor  # s m
    wanted_ND: torch.Tensor


def cosine_map(
    branches: Callable[[], Iterable[Branch]], width: int, ranks: Ranks, device: torch.device
) -> torch.Tensor:
    """T - I, D x D. `branches` gives the batches anew for every epoch; a step takes one batch of every process."""
    map_DD = torch.eye(width, device=device, requires_grad=True)
    adam = torch.optim.Adam([map_DD], lr=RATE)
    steps = int(ranks.most(sum(1 for _ in branches())))
    for _ in range(EPOCHS):
        batches = iter(branches())
        for _ in range(steps):
            map_DD.grad = _gradient(map_DD, batches, ranks)
            adam.step()
    return map_DD.detach() - torch.eye(width, device=device)


def _gradient(map_DD: torch.Tensor, batches: Iterator[Branch], ranks: Ranks) -> torch.Tensor:
    """Of the mean over the tokens of all processes; one that has no batch left adds nothing."""
    gradient_DD, tokens = torch.zeros_like(map_DD), 0
    if branch := next(batches, None):
        with torch.enable_grad():
            out_ND = branch.rest_ND.float() + branch.scaled_ND.float() @ map_DD
            loss = (1 - cosine_similarity(out_ND, branch.wanted_ND.float(), dim=-1)).sum()
            (gradient_DD,) = torch.autograd.grad(loss, map_DD)
        tokens = len(out_ND)
    ranks.all_reduce(gradient_DD)
    return gradient_DD / max(1.0, ranks.total(tokens))
