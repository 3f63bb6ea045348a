"""A block without its attention or its FFN: that branch adds nothing to the residual stream, and is not computed.

The modules of the branch are replaced, for one call, by ones that hand on zeros; the norm behind them (Gemma 2, OLMo 2)
makes zeros of these. A module that is given the residual adds to it itself (BLOOM), so it hands that on. Whether this
is right is not known by architecture: a real call tells what each module returns, and without both branches the block
has to hand on its very input. If it doesn't, it is refused by name.

Shapes: B sequences, T tokens, D hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn

from shortlm.errors import ModelError
from shortlm.model import Anatomy
from shortlm.model.left_out import Nothing, refuse_unknown
from shortlm.sweep.replaced import replaced_forwards
from shortlm.units import ATTENTION, FFN, Unit


class Returned(NamedTuple):
    """What a module gives back: how many things (1: no tuple), and the width of its first (or only) tensor."""

    things: int
    width: int


class Branches:
    """Attention and FFN of every block of a model, which can be silenced."""

    def __init__(self, anatomy: Anatomy):
        self.anatomy, self.blocks = anatomy, anatomy.blocks
        self.names = {ATTENTION: anatomy.attention, FFN: anatomy.ffn}
        self.returned: dict[tuple[Any, ...], dict[str, Returned]] = {}  # by kind of block

    def refuse_unknown(self, i: int, part: str) -> None:
        """Raise ModelError if block i has no attention, or no FFN, that can be told apart."""
        refuse_unknown(self.anatomy, Unit(i, part))

    def left_out(self, units: Sequence[Unit]) -> AbstractContextManager[None]:
        """Inside, the model's forward goes without these sublayers, one of a block at most: the reference for cuts."""
        for unit in units:
            self.refuse_unknown(*unit)

        def without(k: int, original: Callable[..., Any]) -> Callable[..., Any]:
            def forward(h_BTD: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
                return self.output_without(*units[k], h_BTD, lambda: original(h_BTD, *args, **kwargs))

            return forward

        return replaced_forwards([self.blocks[unit.block] for unit in units], without)

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
                first, things = (output[0], len(output)) if isinstance(output, tuple) else (output, 1)
                found[name] = Returned(things, first.shape[-1])

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
        shapes = [returned[name] for name in names]
        return replaced_forwards(modules, lambda k, original: Nothing(original, *shapes[k]).forward)


def _first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    return next(x for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor))


def _refuse_other_changes(block: nn.Module, in_BTD: torch.Tensor, output: Any) -> None:
    """Raise ModelError unless a block without both branches has handed its input on."""
    if not torch.equal(in_BTD, output[0] if isinstance(output, tuple) else output):
        raise ModelError(
            f"{type(block).__name__}: changes its input without attention and FFN too; "
            "only whole blocks can be left out"
        )
