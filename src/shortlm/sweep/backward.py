"""The sweep backwards: gradients of the loss, one block at a time.

A forward walk keeps the state that enters each block. Then, from the last block to the first, each block
is recomputed with gradients and back-propagated; its weight gradients are used at once and freed. Memory
is one block's gradients and the kept states, not a second model.

Shapes: S sequences, B of them in a batch, T tokens, D hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn

from shortlm.model.anatomy import scored_weights
from shortlm.progress import track
from shortlm.sweep.blocks import Batch, BlockCaller
from shortlm.sweep.tail import Tail

Gradients = dict[str, torch.Tensor]


class Passage(NamedTuple):
    """One batch passing one block: the states on both sides and the loss's gradient with respect to the output."""

    batch: Batch
    in_BTD: torch.Tensor
    out_BTD: torch.Tensor
    grad_BTD: torch.Tensor


class BlockGradients:
    """The gradients of one block's scored weights."""

    def __init__(self, caller: BlockCaller, i: int, passages: list[Passage]):
        self.caller, self.index, self.passages = caller, i, passages
        self.weights = scored_weights(caller.blocks[i])
        self.input_grads: list[torch.Tensor] = []  # of each batch, filled by `total`

    def total(self) -> Gradients:
        """The sum over all sequences (signed, in the weights' own type accumulated by autograd)."""
        with _needing_grad(self.weights):
            self.input_grads = [self._backward(p.batch, p.in_BTD, p.grad_BTD) for p in self.passages]
            return self._collected()

    def per_sequence(self) -> Iterator[Gradients]:
        """The gradients of each sequence alone, in order. Together they cost as much as `total`."""
        for passage in self.passages:
            for s in range(len(passage.in_BTD)):
                one = slice(s, s + 1)
                alone = self.caller.prepare(passage.batch.ids_BT[one], passage.batch.keep_BT[one])
                with _needing_grad(self.weights):
                    self._backward(alone, passage.in_BTD[one], passage.grad_BTD[one])
                    yield self._collected()

    def _backward(self, batch: Batch, in_BTD: torch.Tensor, grad_BTD: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            leaf_BTD = in_BTD.detach().requires_grad_(True)
            self.caller(self.index, leaf_BTD, batch).backward(grad_BTD)
        assert leaf_BTD.grad is not None
        return leaf_BTD.grad

    def _collected(self) -> Gradients:
        """Float32; a weight that took no part (an expert that no token chose) has gradient 0."""
        grads = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in self.weights.items()}
        return {n: g.detach().float() for n, g in grads.items()}


def backward_sweep(
    caller: BlockCaller,
    batches: Sequence[tuple[torch.Tensor, torch.Tensor]],
    weights_S: torch.Tensor,
    on_block: Callable[[BlockGradients], object],
) -> None:
    """Back-propagate the sum over sequences of weights_S times their summed cross-entropy.

    `on_block` gets the gradients of each block, last block first. `weights_S` of 1 / (all predicted tokens)
    makes the loss the mean cross-entropy of the whole set.
    """
    prepared = [caller.prepare(ids_BT, keep_BT) for ids_BT, keep_BT in batches]
    states = _states(caller, prepared)
    parts = weights_S.to(caller.device).split([len(b.ids_BT) for b in prepared])
    tail = Tail(caller)
    with tail.loaded():
        grads = [tail.input_grads(h[-1], b, w) for h, b, w in zip(states, prepared, parts, strict=True)]
    for i in track(caller.visit(reverse=True), "gradients", total=len(caller.blocks)):
        passages = [Passage(b, h[i], h[i + 1], g) for b, h, g in zip(prepared, states, grads, strict=True)]
        block = BlockGradients(caller, i, passages)
        on_block(block)
        grads = block.input_grads
        for h in states:
            h.pop()


def _states(caller: BlockCaller, batches: list[Batch]) -> list[list[torch.Tensor]]:
    """h_0 .. h_L of each batch."""
    states = []
    for batch in batches:
        assert batch.h_BTD is not None
        states.append([batch.h_BTD])
    with torch.no_grad():
        for i in caller.visit():
            for batch, h in zip(batches, states, strict=True):
                h.append(caller(i, h[-1], batch))
    return states


@contextmanager
def _needing_grad(weights: dict[str, nn.Parameter]) -> Generator[None, None, None]:
    """Gradients switched on for these weights only, and freed afterwards."""
    try:
        for weight in weights.values():
            weight.requires_grad_(True)
        yield
    finally:
        for weight in weights.values():
            weight.requires_grad_(False)
            weight.grad = None
