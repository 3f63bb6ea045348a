"""How long a device takes for one call: measured on a block of the model's shape with made-up weights.

Needs the config alone, and the memory of one block of each kind. The values don't matter to the time of matrix
products.

Shapes: B sequences, T tokens, D hidden, V vocabulary.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from shortlm.model import find_anatomy, of_other_towers, skeleton
from shortlm.sweep.backward import BlockGradients, Passage
from shortlm.sweep.blocks import Batch, BlockCaller
from shortlm.sweep.tail import Tail
from shortlm.sweep.trace import kinds_of

SECONDS, LEAST = 0.6, 3  # each thing is repeated for that long, and that often
LONG = 5.0  # seconds of a call that is not repeated: warming up counts for little then
VOCABULARY = 8192  # of the head that is timed; the time grows in proportion


@dataclass(frozen=True)
class CallTimes:
    """Seconds of one call: of a block, of the head with the cross-entropy."""

    block: float
    head: float


class MadeUpModel:
    """A model of which one block of each kind is in memory, and a slice of the head."""

    def __init__(self, config: Any, dtype: torch.dtype, device: torch.device, trust_remote_code: bool = False):
        self.model = skeleton(config, dtype, trust_remote_code)
        self.anatomy = find_anatomy(self.model)
        self.kinds = kinds_of(self.anatomy.blocks)
        self.device, self.dtype = device, dtype
        self._fill()
        self.caller = BlockCaller(self.model, self.anatomy)
        self.caller.device = device

    def batch(self, sequences: int, tokens: int) -> Batch:
        """Any tokens, prepared."""
        ids_BT = torch.randint(min(VOCABULARY, self.vocabulary), (sequences, tokens))
        return self.caller.prepare(ids_BT, torch.ones_like(ids_BT, dtype=torch.bool), padded=False)

    def times(self, sequences: int, tokens: int) -> CallTimes:
        """Of calls with so many sequences."""
        batch, tail = self.batch(sequences, tokens), Tail(self.caller)
        h_BTD = batch.h_BTD
        assert h_BTD is not None
        with torch.no_grad():
            block = self.mean(lambda i: self.caller(i, h_BTD, batch))
        head = seconds(lambda: tail.nats(h_BTD, batch), self.device) * max(1, self.vocabulary / VOCABULARY)
        return CallTimes(block, head)

    def back_propagated(self, i: int, sequences: int, tokens: int, of_weights: bool = True) -> BlockGradients:
        """The gradients of block i for one batch."""
        batch = self.batch(sequences, tokens)
        h_BTD = batch.h_BTD
        assert h_BTD is not None
        return BlockGradients(self.caller, i, [Passage(batch, h_BTD, h_BTD, h_BTD)], of_weights)

    def directional_derivatives(self, i: int, sequences: int, tokens: int) -> list[float]:
        """The same, and each sequence's derivative along the weights themselves."""
        block = self.back_propagated(i, sequences, tokens)
        return block.directional_derivatives({name: weight.detach() for name, weight in block.weights.items()})

    def mean(self, call: Callable[[int], object]) -> float:
        """Seconds of call(i), mean over all blocks, from one of each kind."""
        spent = {i: seconds(lambda i=i: call(i), self.device) for i in self.kinds}
        return sum(spent[i] * often for i, often in self.kinds.items()) / len(self.anatomy.blocks)

    def _fill(self) -> None:
        embeddings, head = self.model.get_input_embeddings(), self.anatomy.head
        width, self.vocabulary = embeddings.weight.shape[1], len(head.weight)
        large = {id(embeddings.weight), id(head.weight)}
        inside = {id(p) for i, b in enumerate(self.anatomy.blocks) if i not in self.kinds for p in b.parameters()}
        towers = of_other_towers(self.model, self.anatomy.blocks_path)
        inside |= {id(p) for name, p in self.model.named_parameters() if name in towers}  # text doesn't pass them
        for module in self.model.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None and id(parameter) not in large | inside:
                    module._parameters[name] = self._made_up(parameter.shape, parameter.dtype)
            for name, buffer in module._buffers.items():
                module._buffers[name] = None if buffer is None else buffer.to(self.device)
        rows = min(VOCABULARY, self.vocabulary)
        head._parameters["weight"] = self._made_up((rows, head.weight.shape[1]), head.weight.dtype)
        if head._parameters.get("bias") is not None:
            head._parameters["bias"] = self._made_up((rows,), head.bias.dtype)
        embeddings.forward = lambda ids: torch.randn(*ids.shape, width, dtype=self.dtype, device=self.device)

    def _made_up(self, shape: Any, dtype: torch.dtype) -> nn.Parameter:
        return nn.Parameter(torch.full(shape, 0.01, dtype=dtype, device=self.device), requires_grad=False)


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """The median over repeats, after one that doesn't count unless it is long."""
    first = _once(call, device)
    if first > LONG:
        return first
    spent: list[float] = []
    while len(spent) < LEAST or sum(spent) < SECONDS:
        spent.append(_once(call, device))
    return statistics.median(spent)


def _once(call: Callable[[], object], device: torch.device) -> float:
    _finish(device)
    started = time.perf_counter()
    call()
    _finish(device)
    return time.perf_counter() - started


def _finish(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
