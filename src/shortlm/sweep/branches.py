"""A block without its attention or its FFN: that branch adds nothing to the residual stream, and is not computed.

The modules of the branch are replaced, for one call, by ones that hand on zeros; the norm behind them (Gemma 2, OLMo 2)
makes zeros of these. A module that is given the residual adds to it itself (BLOOM), so it hands that on. Whether this
is right is not known by architecture: a real call tells what each module returns, and without both branches the block
has to hand on its very input. If it doesn't, it is refused by name.

Shapes: B sequences, T tokens, D hidden.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from shortlm.errors import ModelError
from shortlm.model import Anatomy
from shortlm.sweep.replaced import replaced_forwards
from shortlm.units import ATTENTION, FFN


@dataclass(frozen=True)
class Returned:
    """What a module gives back: the width of its first (or only) tensor, and how many things (0: no tuple)."""

    width: int
    things: int


class Branches:
    """Attention and FFN of every block of a model, which can be silenced."""

    def __init__(self, anatomy: Anatomy):
        self.blocks, self.names = anatomy.blocks, {ATTENTION: anatomy.attention, FFN: anatomy.ffn}
        self.returned: dict[tuple[Any, ...], dict[str, Returned]] = {}  # by kind of block

    def refuse_unknown(self, i: int, part: str) -> None:
        """Raise ModelError if block i has no attention, or no FFN, that can be told apart."""
        if not self.names[part][i]:
            raise ModelError(
                f"{type(self.blocks[i]).__name__}: has no {part} that can be told apart in block {i}; "
                "only whole blocks can be left out"
            )

    def output_without(self, i: int, part: str, h_BTD: torch.Tensor, call: Callable[[], Any]) -> Any:
        """What block i returns for h_BTD without one of its branches; `call` calls the whole block with it.

        Raises ModelError if the block can't be understood so.
        """
        kind = self._kind(i)
        if kind not in self.returned:
            self.refuse_unknown(i, part)
            returned = self._seen(i, call)
            with self._silenced(i, (ATTENTION, FFN), returned):
                _refuse_other_changes(self.blocks[i], h_BTD, call())
            self.returned[kind] = returned
        with self._silenced(i, (part,), self.returned[kind]):
            return call()

    @contextmanager
    def entering(self, i: int, part: str) -> Generator[list[torch.Tensor], None, None]:
        """Inside, what enters the sublayer in calls of block i is noted, also where it is silenced."""
        entered: list[torch.Tensor] = []
        called: list[nn.Module] = []

        def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            called.append(module)
            if module is called[0]:  # of several modules (OPT's fc1 and fc2) the first one
                entered.append(_first_tensor(args, kwargs))

        modules = [self.blocks[i].get_submodule(name) for name in self.names[part][i]]
        hooks = [module.register_forward_pre_hook(note, with_kwargs=True) for module in modules]
        try:
            yield entered
        finally:
            for hook in hooks:
                hook.remove()

    def _kind(self, i: int) -> tuple[Any, ...]:
        names = [*self.names[ATTENTION][i], *self.names[FFN][i]]
        return type(self.blocks[i]), *((name, type(self.blocks[i].get_submodule(name))) for name in names)

    def _seen(self, i: int, call: Callable[[], Any]) -> dict[str, Returned]:
        """What the modules of block i return in a real call."""
        found: dict[str, Returned] = {}
        hooks = []
        for name in (name for part in self.names.values() for name in part[i]):

            def note(module: nn.Module, args: Any, output: Any, name: str = name) -> None:
                things = len(output) if isinstance(output, tuple) else 0
                found[name] = Returned((output[0] if things else output).shape[-1], things)

            hooks.append(self.blocks[i].get_submodule(name).register_forward_hook(note))
        try:
            call()
        finally:
            for hook in hooks:
                hook.remove()
        return found

    def _silenced(self, i: int, parts: Sequence[str], returned: dict[str, Returned]) -> AbstractContextManager[None]:
        names = [name for part in parts for name in self.names[part][i] if name in returned]
        modules = [self.blocks[i].get_submodule(name) for name in names]
        return replaced_forwards(modules, lambda k, original: _silent(original, returned[names[k]]))


def _refuse_other_changes(block: nn.Module, in_BTD: torch.Tensor, output: Any) -> None:
    """Raise ModelError unless a block without both branches has handed its input on."""
    if not torch.equal(in_BTD, output[0] if isinstance(output, tuple) else output):
        raise ModelError(
            f"{type(block).__name__}: changes its input without attention and FFN too; "
            "only whole blocks can be left out"
        )


def _first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    return next(x for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor))


def _silent(original: Callable[..., Any], returned: Returned) -> Callable[..., Any]:
    """A forward that adds nothing: zeros, or the residual where the module is given it."""
    place = list(inspect.signature(original).parameters)
    adds = place.index("residual") if "residual" in place else None

    def forward(*args: Any, **kwargs: Any) -> Any:
        if adds is not None:
            first = kwargs["residual"] if "residual" in kwargs else args[adds]
        else:
            entering = _first_tensor(args, kwargs)
            first = entering.new_zeros(*entering.shape[:-1], returned.width)
        return (first, *[None] * (returned.things - 1)) if returned.things else first

    return forward
