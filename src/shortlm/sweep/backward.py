"""The sweep backwards: gradients of the loss, one block at a time.

A forward walk keeps the state that enters each block. Then, from the last block to the first, each block
is recomputed with gradients and back-propagated; its weight gradients are used at once and freed. Memory
is one block's gradients and the kept states, not a second model.

Shapes: S sequences, B of them in a batch, T tokens, D hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from shortlm.errors import is_out_of_memory
from shortlm.model.anatomy import scored_weights
from shortlm.progress import track
from shortlm.sweep.blocks import Batch, BlockCaller, widest
from shortlm.sweep.ranks import Ranks
from shortlm.sweep.tail import Tail

Gradients = dict[str, torch.Tensor]
FORWARD_MODE_TOKENS = 512
PIECE = 2**18  # elements that are reduced at a time: copies of them stay in the cache (14 times faster than 2**22)


class Passage(NamedTuple):
    """One batch passing one block: the states on both sides and the loss's gradient with respect to the output."""

    batch: Batch
    in_BTD: torch.Tensor
    out_BTD: torch.Tensor
    grad_BTD: torch.Tensor


class BlockGradients:
    """The gradients of one block: of its input always, of its scored weights if `of_weights`."""

    def __init__(self, caller: BlockCaller, i: int, passages: list[Passage], of_weights: bool = True):
        self.caller, self.index, self.passages = caller, i, passages
        self.weights = scored_weights(caller.blocks[i])
        self.sums: Gradients = {}
        with _on_gradient(self.weights if of_weights else {}, self._add):
            self.input_grads = [self._backward(p.batch, p.in_BTD, p.grad_BTD) for p in passages]

    def total(self, name: str) -> torch.Tensor:
        """The gradient of a weight, signed, summed over all sequences in float32.

        A weight that took no part (an expert that no token chose) has gradient 0.
        """
        return self.sums[name] if name in self.sums else torch.zeros_like(self.weights[name], dtype=torch.float32)

    def all_reduce(self, ranks: Ranks) -> None:
        """The weights' gradients become those of the sequences of all processes."""
        for name in self.weights if ranks.size > 1 else ():
            self.sums[name] = self.total(name).contiguous()
            ranks.all_reduce(self.sums[name])

    def without(self, part: str, passage: Passage) -> torch.Tensor:
        """The block's output without one of its parts; without the whole block: its input."""
        with torch.no_grad():
            return self.caller.without(self.index, part, passage.in_BTD, passage.batch)

    def effect_of(self, part: str, passage: Passage) -> torch.Tensor:
        """How the loss of each sequence would change without one of the block's parts, to first order behind it:
        <dLoss/dh_{i+1}, output without it - h_{i+1}>, float64, on the CPU.
        """
        change_BTD = (self.without(part, passage) - passage.out_BTD).cpu().double()
        return (passage.grad_BTD.cpu().double() * change_BTD).sum((1, 2))

    def directional_derivatives(self, direction: Gradients) -> list[float]:
        """For each sequence, how the loss changes along a direction in the weights: <direction, its own gradient>.
        Weights that the direction does not name stay as they are.

        Costs as much as one more backward pass over the block.
        """
        values: list[float] = []
        for passage in self.passages:
            before = self.caller.forwards
            at_once = self._at_once(passage, direction)
            values += at_once or [self._one_by_one(passage, s, direction) for s in range(len(passage.in_BTD))]
            self.caller.forwards = before + 1  # one batch's worth of work, in either way
        return values

    def _at_once(self, passage: Passage, direction: Gradients) -> list[float] | None:
        """Forward-mode differentiation: the output's change along the direction, times the loss's gradient there.

        All sequences in one call and no gradient of the weights. None where a kernel has no forward mode (that of
        attention has none, so the plain one is used, which needs T x T per head: for short windows only).
        """
        kind = type(self.caller.blocks[self.index])
        if kind in self.caller.no_forward_mode or passage.in_BTD.shape[1] > FORWARD_MODE_TOKENS:
            return None
        args, kwargs = passage.batch.calls[self.index]
        try:
            with torch.no_grad(), forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH):
                duals = {n: forward_ad.make_dual(self.weights[n].detach(), d) for n, d in direction.items()}
                out = functional_call(self.caller.blocks[self.index], duals, (passage.in_BTD, *args), kwargs)
                out_BTD = out[0] if isinstance(out, (tuple, list)) else out
                change_BTD = forward_ad.unpack_dual(out_BTD).tangent
        except (NotImplementedError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            self.caller.no_forward_mode.add(kind)
            return None
        return (change_BTD.float() * passage.grad_BTD.float()).sum((1, 2), dtype=widest(change_BTD.device)).tolist()

    def _one_by_one(self, passage: Passage, s: int, direction: Gradients) -> float:
        products: list[torch.Tensor] = []

        def multiply(name: str, grad: torch.Tensor) -> None:
            pieces = zip(direction[name].flatten().split(PIECE), grad.flatten().split(PIECE), strict=True)
            products.extend((d.float() * g.float()).sum(dtype=widest(grad.device)) for d, g in pieces)

        with _on_gradient({name: self.weights[name] for name in direction}, multiply):
            self._backward(passage.batch.alone(self.caller, s), passage.in_BTD[s, None], passage.grad_BTD[s, None])
        return float(sum(products))

    def _add(self, name: str, grad: torch.Tensor) -> None:
        if name in self.sums:
            self.sums[name] += grad
        elif grad.dtype == torch.float32:
            self.caller.spare.pop(name, None)
            self.sums[name] = grad
        else:  # into the memory of the block before: fresh pages cost more than the copy
            spare = self.caller.spare.pop(name, None)
            fits = spare is not None and spare.shape == grad.shape
            self.sums[name] = spare.copy_(grad) if spare is not None and fits else grad.float()

    def _backward(self, batch: Batch, in_BTD: torch.Tensor, grad_BTD: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            leaf_BTD = in_BTD.detach().requires_grad_(True)
            self.caller(self.index, leaf_BTD, batch).backward(grad_BTD)
        assert leaf_BTD.grad is not None
        return leaf_BTD.grad


class KeptStates:
    """An observer that keeps h_0 .. h_L of every batch of a forward sweep, for `backward_sweep`."""

    def __init__(self) -> None:
        self.batches: list[tuple[Batch, list[torch.Tensor]]] = []

    def __call__(self, i: int, in_BTD: torch.Tensor, out_BTD: torch.Tensor, batch: Batch) -> None:
        """The hook of the sweep."""
        if i == 0:
            self.batches.append((batch, [in_BTD]))
        next(states for known, states in self.batches if known is batch).append(out_BTD)

    def taken(self) -> list[list[torch.Tensor]]:
        """The states in the order of the batches, given away; an empty list if there are none."""
        states, self.batches = [states for _, states in self.batches], []
        return states


def backward_sweep(
    caller: BlockCaller,
    batches: Sequence[tuple[torch.Tensor, torch.Tensor]],
    weights_S: torch.Tensor,
    on_block: Callable[[BlockGradients], object],
    of_weights: bool = True,
    states: list[list[torch.Tensor]] | None = None,
) -> None:
    """Back-propagate the sum over sequences of weights_S times their summed cross-entropy.

    `on_block` gets the gradients of each block, last block first. `weights_S` of 1 / (all predicted tokens)
    makes the loss the mean cross-entropy of the whole set. `states` are those a forward sweep has kept; they
    are used up.
    """
    caller.begin_pass()
    prepared = [caller.prepare(ids_BT, keep_BT) for ids_BT, keep_BT in batches]
    states = states or _states(caller, prepared)
    parts = weights_S.to(caller.device).split([len(b.ids_BT) for b in prepared])
    tail = Tail(caller)
    with tail.loaded():
        grads = [tail.input_grads(h[-1], b, w) for h, b, w in zip(states, prepared, parts, strict=True)]
    for i in track(caller.visit(reverse=True), "gradients", total=len(caller.blocks)):
        passages = [Passage(b, h[i], h.pop(), g) for b, h, g in zip(prepared, states, grads, strict=True)]
        block = BlockGradients(caller, i, passages, of_weights)
        on_block(block)
        grads, caller.spare = block.input_grads, block.sums
        del block, passages  # they hold on to the block's weights
    caller.spare = {}


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
def _on_gradient(
    weights: dict[str, nn.Parameter], use: Callable[[str, torch.Tensor], object]
) -> Generator[None, None, None]:
    """Gradients switched on for these weights; each is handed to `use` as soon as it is made, then freed."""

    def hook(name: str, weight: torch.Tensor) -> None:
        assert weight.grad is not None
        use(name, weight.grad)
        weight.grad = None

    handles = []
    try:
        for name, weight in weights.items():
            weight.requires_grad_(True)
            handles.append(weight.register_post_accumulate_grad_hook(partial(hook, name)))
        yield
    finally:
        for handle in handles:
            handle.remove()
        for weight in weights.values():
            weight.requires_grad_(False)
            weight.grad = None
