"""Call one block of a model alone, with the very arguments that the model's own forward gives it.

transformers prepares masks and rotary embeddings before the first block; they don't depend on the hidden
states. So the model's forward runs once per batch with every block replaced by a recorder that hands its
input on, and each block's own arguments are kept; it ends where the head is called. The tail (final norm, head,
soft-caps, scales) is the same forward with the blocks bypassed and a given state put in at the end.

Shapes: B sequences, T tokens, D hidden, X what enters the head, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from shortlm.errors import ModelError, TextError, library_errors
from shortlm.model.anatomy import Anatomy
from shortlm.model.config import refuse_shared_states
from shortlm.model.devices import tokens_per_call
from shortlm.model.opening import context_of
from shortlm.model.streaming import DiskBlocks
from shortlm.sweep.branches import Branches
from shortlm.sweep.decisions import DROP, KEEP, LEFT_OUT, WITHOUT
from shortlm.sweep.replaced import replaced_forwards


@dataclass
class Batch:
    """Sequences that are computed together, and what the blocks are called with for them."""

    ids_BT: torch.Tensor
    keep_BT: torch.Tensor
    padded: bool
    h_BTD: torch.Tensor | None = None  # enters block 0
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    repeats: dict[int, Batch] = field(default_factory=dict)  # the same sequences several times over
    singles: dict[int, Batch] = field(default_factory=dict)  # one of the sequences alone

    @classmethod
    def of(cls, ids_BT: torch.Tensor, keep_BT: torch.Tensor, padded: bool | None = None) -> Batch:
        """Sequences with nothing recorded yet."""
        return cls(ids_BT, keep_BT, not bool(keep_BT.all()) if padded is None else padded)

    @property
    def mask(self) -> torch.Tensor | None:
        """attention_mask, or None where nothing is padded: transformers is faster without."""
        return self.keep_BT.long() if self.padded else None

    def alone(self, caller: BlockCaller, s: int) -> Batch:
        """Sequence s by itself."""
        if len(self.ids_BT) == 1:
            return self
        if s not in self.singles:
            self.singles[s] = caller.prepare(self.ids_BT[s, None], self.keep_BT[s, None])
            self.singles[s].h_BTD = None
        return self.singles[s]


class _AtHeadError(Exception):
    """Ends a forward where the head is called, with what it is called with."""

    def __init__(self, entering_BTX: torch.Tensor):
        super().__init__()
        self.entering_BTX = entering_BTX


class BlockCaller:
    """The blocks of one model, callable one at a time. The model is left as it was found.

    Raises ModelError if blocks can't be run one at a time.
    """

    def __init__(self, model: Any, anatomy: Anatomy, disk: DiskBlocks | None = None):
        refuse_shared_states(model.config)
        self.model, self.blocks, self.head, self.disk = model, anatomy.blocks, anatomy.head, disk
        self.norm, self.branches = anatomy.norm, Branches(anatomy)
        self.tail_form: Any = None  # what tail.py has found out about this model
        self.device = disk.device if disk else model.get_input_embeddings().weight.device
        self.things: dict[type[nn.Module], int] = {}  # that a kind of block returns: 0 for a tensor alone
        self.no_forward_mode: set[type[nn.Module]] = set()
        self.spare: dict[str, torch.Tensor] = {}  # memory for gradients, handed from block to block
        self.forwards = 0  # blocks computed, each for one batch
        self.passed = 0  # the same, each for one sequence

    def visit(self, reverse: bool = False, without: Sequence[int] = ()) -> Generator[int, None, None]:
        """Yield the indices of all blocks (but some), each while it is in memory. Blocks are only called inside."""
        order = [i for i in range(len(self.blocks))[:: -1 if reverse else 1] if i not in without]
        yield from self.disk.visit(order) if self.disk else order

    def begin_pass(self) -> None:
        """Before the batches of a pass over the blocks are prepared: what was kept for those before is freed."""
        if self.disk and self.disk.rows:
            self.disk.rows.forget()

    def prepare(self, ids_BT: torch.Tensor, keep_BT: torch.Tensor, padded: bool | None = None) -> Batch:
        """Record what every block is called with for these sequences. `padded` saves looking whether they are."""
        self._refuse_beyond_context(ids_BT.shape[1])
        batch = Batch.of(ids_BT.to(self.device), keep_BT.to(self.device), padded)

        def recorder(i: int, original: Callable[..., Any]) -> Callable[..., Any]:
            def record(h_BTD: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
                batch.h_BTD = h_BTD if i == 0 else batch.h_BTD
                batch.calls.append((args, kwargs))
                return self._as_output(i, h_BTD, original, args, kwargs)

            return record

        what = f"{type(self.model).__name__}: can't be run on text alone"
        with torch.no_grad(), replaced_forwards(self.blocks, recorder), library_errors(ModelError, what):
            self.head_input(batch)
        return batch

    def __call__(self, i: int, h_BTD: torch.Tensor, batch: Batch, decision: int = KEEP) -> torch.Tensor:
        """Block i, or what a decision leaves of it, on h_BTD: the state that enters block i + 1."""
        args, kwargs = batch.calls[i]
        self.forwards += 1
        self.passed += len(h_BTD)
        return self.decided(i, decision, h_BTD, lambda: self.blocks[i](h_BTD, *args, **kwargs))

    def decided(self, i: int, decision: int, h_BTD: torch.Tensor, call: Callable[[], Any]) -> torch.Tensor:
        """The state behind block i by `call`, which calls it with h_BTD; without a branch, as the decision says."""
        output = call() if decision == KEEP else self.branches.output_without(i, LEFT_OUT[decision], h_BTD, call)
        return output[0] if isinstance(output, (tuple, list)) else output

    def without(self, i: int, part: str, h_BTD: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The state behind block i without one of its parts; without the whole block that is h_BTD itself."""
        decision = WITHOUT[part]
        return h_BTD if decision == DROP else self(i, h_BTD, batch, decision)

    def together(self, batch: Batch) -> int:
        """How many states of a batch make a well-filled call."""
        return max(1, tokens_per_call(self.device) // batch.ids_BT.numel())

    def several(
        self, i: int, states: Sequence[torch.Tensor], batch: Batch, decision: int = KEEP
    ) -> Sequence[torch.Tensor]:
        """Block i on several states of one batch, in one call."""
        count = len(states)
        if count < 2:
            return [self(i, h_BTD, batch, decision) for h_BTD in states]
        self.forwards += count - 1
        return self(i, torch.cat(tuple(states)), self.repeated(batch, count), decision).split(len(batch.ids_BT))

    def repeated(self, batch: Batch, count: int) -> Batch:
        """The same sequences so many times over, prepared."""
        if count not in batch.repeats:
            repeat = self.prepare(batch.ids_BT.repeat(count, 1), batch.keep_BT.repeat(count, 1))
            repeat.h_BTD = None
            batch.repeats[count] = repeat
        return batch.repeats[count]

    def head_input(self, batch: Batch) -> torch.Tensor:
        """The model's own forward up to its head: entering_BTX. No logits are made."""

        def stop(entering_BTX: torch.Tensor) -> torch.Tensor:
            raise _AtHeadError(entering_BTX)

        try:
            with replaced_forwards([self.head], lambda i, original: stop):
                self._forward(batch)
        except _AtHeadError as stopped:
            return stopped.entering_BTX
        raise ModelError(f"{type(self.model).__name__}: its forward never calls its head; it can't be scored")

    def own_forward(
        self, batch: Batch, changed: Callable[[int, torch.Tensor, Callable[[int], torch.Tensor]], torch.Tensor]
    ) -> torch.Tensor:
        """The state behind the last block by the model's own forward; each block is in memory when it is called. What
        goes on behind block i is changed(i, input, behind), where behind(decision) is the state behind it.

        Raises ModelError if the forward does not call one block after the other.
        """
        name, states = type(self.model).__name__, [torch.empty(0)]

        def follow(i: int, original: Callable[..., Any]) -> Callable[..., Any]:
            def forward(h_BTD: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
                if next(coming, None) != i:
                    raise ModelError(f"{name}: its blocks are not called one after the other; it can't be scored")
                outputs: list[Any] = []

                def call() -> Any:
                    outputs.append(original(h_BTD, *args, **kwargs))
                    return outputs[-1]

                states[0] = changed(i, h_BTD, lambda decision: self.decided(i, decision, h_BTD, call))
                return (states[0], *outputs[0][1:]) if isinstance(outputs[0], (tuple, list)) else states[0]

            return forward

        with closing(self.visit()) as coming, torch.no_grad(), replaced_forwards(self.blocks, follow):
            self.head_input(batch)
            if next(coming, None) is not None:
                raise ModelError(f"{name}: not all of its blocks are called; it can't be scored")
        return states[0]

    def tail(self, h_BTD: torch.Tensor, batch: Batch) -> torch.Tensor:
        """logits_BTV of a state that has passed the last block. Where the head is on disk, it has to be loaded."""
        with self.ending_in(h_BTD):
            return self._forward(batch)

    def ending_in(self, h_BTD: torch.Tensor) -> AbstractContextManager[None]:
        """Inside, the model's forward skips all blocks and goes on behind the last one with h_BTD."""
        last = len(self.blocks) - 1

        def bypass(i: int, original: Callable[..., Any]) -> Callable[..., Any]:
            def hand_on(h: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
                state = h_BTD if i == last else h
                return _as_many(state, self.things[type(self.blocks[i])])

            return hand_on

        return replaced_forwards(self.blocks, bypass)

    def _refuse_beyond_context(self, length: int) -> None:
        context = context_of(self.model.config)
        if context is not None and length > context:
            raise TextError(
                f"windows of {length} tokens (BOS included) are beyond the model's {context}; use a smaller --length"
            )

    def _forward(self, batch: Batch) -> torch.Tensor:
        return self.model(input_ids=batch.ids_BT, attention_mask=batch.mask, use_cache=False).logits

    def _as_output(self, i: int, h_BTD: torch.Tensor, original: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """h_BTD in the form that this kind of block returns; found out by one real call per kind."""
        kind = type(self.blocks[i])
        if kind not in self.things:
            for _ in self.disk.visit([i]) if self.disk else [i]:
                output = original(h_BTD, *args, **kwargs)
                self.things[kind] = len(output) if isinstance(output, (tuple, list)) else 0
        return _as_many(h_BTD, self.things[kind])


def _as_many(state: torch.Tensor, things: int) -> Any:
    """The state as a block returns it: beside it nothing, as without a cache and without attention maps."""
    return (state, *[None] * (things - 1)) if things else state


def widest(device: torch.device) -> torch.dtype:
    """The type to sum in: float64, which Apple's GPUs don't have."""
    return torch.float32 if device.type == "mps" else torch.float64


def predicted(batch: Batch) -> torch.Tensor:
    """B x (T-1), true where both a token and the one it is predicted from are no padding."""
    return batch.keep_BT[:, 1:] & batch.keep_BT[:, :-1]
