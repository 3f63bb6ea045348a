"""What one call of a block costs, found without memory or time: a run on shapes alone.

torch's fake tensors go through the model's own code; the bytes that are alive at the same time and the
floating-point operations are counted on the way. Works from a config, for any architecture.

Shapes: B sequences, T tokens, D hidden.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from shortlm.model import auto_class, find_anatomy
from shortlm.sweep.backward import BlockGradients, Passage
from shortlm.sweep.blocks import BlockCaller


@dataclass(frozen=True)
class CallCost:
    """Of one block's call with B sequences of T tokens; blocks of several kinds: the largest, flops the mean."""

    flops: float
    state_bytes: int  # the hidden state itself
    forward_bytes: int  # alive at once beyond the block's weights and its input
    backward_bytes: int | None  # the same with gradients, those of the weights apart; None if not asked for
    exact: bool = True  # False where the model's code could not be run on shapes alone


def call_cost(
    config: Any, dtype: torch.dtype, batch: int, tokens: int, gradients: bool = False, **opening: Any
) -> CallCost:
    """The cost of a block's call. Models whose code looks at values (some experts' routing) get an estimate."""
    for kind in (dtype, torch.bfloat16):  # some kernels for experts know one type only
        try:
            with silent():
                cost = _traced(config, kind, batch, tokens, gradients, **opening)
        except Exception:  # whatever the code of an architecture does with values that aren't there
            continue
        return _scaled(cost, dtype.itemsize / kind.itemsize)
    return _estimated(config, dtype, batch, tokens, gradients, **opening)


def _traced(config: Any, dtype: torch.dtype, batch: int, tokens: int, gradients: bool, **opening: Any) -> CallCost:
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cpu"):
        model = auto_class(config).from_config(config, dtype=dtype, **opening).eval().requires_grad_(False)
        caller = BlockCaller(model, find_anatomy(model))
        ids_BT = torch.zeros(batch, tokens, dtype=torch.long)
        prepared = caller.prepare(ids_BT, torch.ones_like(ids_BT, dtype=torch.bool), padded=False)
        h_BTD = prepared.h_BTD
        assert h_BTD is not None
        kinds = kinds_of(caller.blocks)
        flops, forward, backward = 0.0, [], []
        for i, often in kinds.items():
            with torch.no_grad(), FlopCounterMode(display=False) as counter, LiveBytes(caller.blocks[i]) as live:
                caller(i, h_BTD, prepared)
            flops += counter.get_total_flops() * often / len(caller.blocks)
            forward.append(live.peak)
            if gradients:
                with LiveBytes(caller.blocks[i]) as live:
                    grads = BlockGradients(caller, i, [Passage(prepared, h_BTD, h_BTD, h_BTD)])
                backward.append(live.peak - sum(t.numel() * 4 for t in grads.sums.values()))
        state = h_BTD.numel() * h_BTD.element_size()
    return CallCost(flops, state, max(forward), max(backward, default=None))


def kinds_of(blocks: list[nn.Module]) -> dict[int, int]:
    """One block of each kind (equal shapes and submodules), and how often the kind occurs."""
    signatures = [
        tuple((n, type(m), tuple(p.shape)) for n, m in b.named_modules() for p in m.parameters(False)) for b in blocks
    ]
    return {signatures.index(kind): signatures.count(kind) for kind in dict.fromkeys(signatures)}


def _scaled(cost: CallCost, factor: float) -> CallCost:
    backward = None if cost.backward_bytes is None else int(cost.backward_bytes * factor)
    return CallCost(cost.flops, int(cost.state_bytes * factor), int(cost.forward_bytes * factor), backward)


def _estimated(config: Any, dtype: torch.dtype, batch: int, tokens: int, gradients: bool, **opening: Any) -> CallCost:
    """All weights take part, and what is alive is twenty hidden states: too much rather than too little."""
    from shortlm.model import meta_model

    model: Any = meta_model(config, **opening)
    anatomy = find_anatomy(model)
    width = model.get_input_embeddings().weight.shape[1]
    weights = sum(p.numel() for block in anatomy.blocks for p in block.parameters()) / len(anatomy.blocks)
    state = batch * tokens * width * dtype.itemsize
    return CallCost(2.0 * weights * batch * tokens, state, 20 * state, 60 * state if gradients else None, exact=False)


class LiveBytes(TorchDispatchMode):
    """The most bytes alive at one time among tensors made inside; the weights of `module`, the gradients that it has
    already, and views of either apart."""

    def __init__(self, module: nn.Module):
        super().__init__()
        held = [t for p in module.parameters() for t in (p, p.grad) if t is not None]
        self.known = {t.untyped_storage()._cdata for t in held}
        self.live: dict[int, tuple[Any, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        from torch.multiprocessing.reductions import StorageWeakRef
        from torch.utils._pytree import tree_leaves

        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.known:
                    self.live.setdefault(storage._cdata, (StorageWeakRef(storage), storage.nbytes()))
        self.live = {key: entry for key, entry in self.live.items() if not entry[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.live.values()))
        return out


@contextmanager
def silent() -> Generator[None, None, None]:
    """torch logs what can't be run on shapes; we try another way."""
    loggers = [logging.getLogger(name) for name in ("torch._subclasses.fake_tensor", "transformers")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
