"""Sublayers that are left out of a model: what stands in their place, and which norms go with them.

A module that adds to the residual stream becomes one without weights that adds nothing, a norm which serves nothing
else becomes the identity. Which these are is not known by architecture, but seen: a block is run on shapes alone, with
its branches replaced, and autograd tells what its output depends on.

Left out of a block, as our own type's config says it: {"attention": {"self_attn": 2, "input_layernorm": 0}}, by module
how many things it returns (1: a tensor, n: a tuple that begins with it), or 0 for one that hands its input on.

Shapes: B sequences, T tokens, D hidden.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import ExitStack, contextmanager
from itertools import product
from typing import Any

import torch
from torch import nn

from shortlm.errors import ModelError
from shortlm.model.anatomy import Anatomy, find_anatomy, is_norm
from shortlm.units import ATTENTION, FFN, Unit

Modules = dict[str, int]  # of one block and part: name -> things returned
LeftOut = dict[str, dict[str, Modules]]  # block -> part -> modules
MOST_THINGS = 3  # that a module was seen to return
B, T = 5, 7  # of the run on shapes: no tuple has as many things as it has sequences


class Nothing(nn.Module):
    """Adds nothing: zeros in the shape of its input, or the residual where it is given that, and None for the rest.

    `things` as a module's own output has them (1: no tuple), `width` of the zeros if not the input's.
    """

    def __init__(self, replaced: Callable[..., Any], things: int, width: int | None = None):
        super().__init__()
        place = list(inspect.signature(replaced).parameters)
        self.residual = place.index("residual") if "residual" in place else None  # BLOOM's modules add to it
        self.things, self.width = things, width

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the replaced module is called."""
        first = self.added(*args, **kwargs)
        return (first, *[None] * (self.things - 1)) if self.things > 1 else first

    def added(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The tensor that it returns."""
        if self.residual is not None:
            return kwargs["residual"] if "residual" in kwargs else args[self.residual]
        entering = _entering(args, kwargs)
        return entering.new_zeros(*entering.shape[:-1], self.width or entering.shape[-1])


class _PassedOn(Nothing):
    """Stands for a branch that stays: what it returns depends on its input."""

    def added(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        given = super().added(*args, **kwargs)
        return given + _entering(args, kwargs)


def _entering(args: Sequence[Any], kwargs: dict[str, Any]) -> torch.Tensor:
    return next(x for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor))


def leave_out(model: Any, left_out: LeftOut) -> None:
    """Replace these modules of `model`, and number the attentions that stay as the KV cache counts them.

    Raises ValueError for what the model doesn't have.
    """
    blocks = find_anatomy(model).blocks
    for i, parts in left_out.items():
        if int(i) >= len(blocks):
            raise ValueError(f"left_out: names block {i} of a model of {len(blocks)}")
        block = blocks[int(i)]
        for name, things in (item for modules in parts.values() for item in modules.items()):
            replaced = dict(block.named_children()).get(name)
            if replaced is None:
                raise ValueError(f"left_out: block {i} of {type(block).__name__} has no module {name!r}")
            setattr(block, name, Nothing(replaced.forward, things) if things else nn.Identity())
    attending = [i for i in range(len(blocks)) if ATTENTION not in left_out.get(str(i), {})]
    names = find_anatomy(model).attention
    for place, i in enumerate(attending):
        inside: Any = [module for name in names[i] for module in blocks[i].get_submodule(name).modules()]
        for module in inside:
            if "layer_idx" in vars(module):
                module.layer_idx = place


def modules_of(model: Any, units: Sequence[Unit]) -> dict[Unit, Modules]:
    """The modules that each of these sublayers takes with it, of a model without memory for its weights.

    Raises ModelError for a sublayer that can't be told apart or left out alone.
    """
    anatomy = find_anatomy(model)
    for unit in units:
        refuse_unknown(anatomy, unit)
    width = model.get_input_embeddings().weight.shape[1]
    return {unit: _Probe(anatomy, unit.block, width).modules(unit.part) for unit in units}


def refuse_unknown(anatomy: Anatomy, unit: Unit) -> None:
    """Raise ModelError if the block has no attention, or no FFN, that can be told apart."""
    if not {ATTENTION: anatomy.attention, FFN: anatomy.ffn}[unit.part][unit.block]:
        raise ModelError(
            f"{type(anatomy.blocks[unit.block]).__name__}: has no {unit.part} that can be told apart in block "
            f"{unit.block}; only whole blocks can be left out"
        )


class _Probe:
    """One block, run on shapes alone. Masks, positions and caches are None: stand-ins don't look at them."""

    def __init__(self, anatomy: Anatomy, i: int, width: int):
        self.block, self.width = anatomy.blocks[i], width
        self.needed = [p for p in list(inspect.signature(self.block.forward).parameters.values())[1:] if _needed(p)]
        self.names = {ATTENTION: anatomy.attention[i], FFN: anatomy.ffn[i]}
        every = [name for names in self.names.values() for name in names]
        self.norms = {n: m for n, m in self.block.named_children() if n not in every and [*m.parameters()]}
        self.things = self._things(every)

    def modules(self, part: str) -> Modules:
        """Those of a part, and the norms that serve nothing else."""
        if self._serving((ATTENTION, FFN))[1]:
            raise ModelError(
                f"{type(self.block).__name__}: changes its input without attention and FFN too; "
                "only whole blocks can be left out"
            )
        idle, _ = self._serving((part,))
        return {name: self.things[name] for name in self.names[part]} | dict.fromkeys(idle, 0)

    def _things(self, names: list[str]) -> dict[str, int]:
        """How many things each module returns: the first numbers that the block's code can do with."""
        for counts in product(range(1, MOST_THINGS + 1), repeat=len(names)):
            things = dict(zip(names, counts, strict=True))
            try:
                in_BTD, out_BTD = self._run(things, (ATTENTION, FFN))
            except Exception:  # whatever an architecture's code does with another number of things
                continue
            if out_BTD.shape == in_BTD.shape and out_BTD.requires_grad:
                return things
        raise ModelError(
            f"{type(self.block).__name__}: its branches can't be replaced; only whole blocks can be left out"
        )

    def _serving(self, parts: Sequence[str]) -> tuple[list[str], list[str]]:
        """Without these parts: norms that make no difference any more, and those that do."""
        fed: set[str] = set()

        def note(name: str) -> Callable[..., None]:
            return lambda module, args, output: fed.add(name) if args[0].requires_grad else None

        with ExitStack() as hooks:
            for name, norm in self.norms.items():
                hooks.callback(norm.register_forward_hook(note(name)).remove)
            _, out_BTD = self._run(self.things, parts)
        idle, working = [], []
        for name, norm in self.norms.items():
            found = torch.autograd.grad(out_BTD.sum(), [*norm.parameters()], allow_unused=True, retain_graph=True)
            makes_zeros = name not in fed and is_norm(norm) and not any("bias" in n for n, _ in norm.named_parameters())
            unused = all(gradient is None for gradient in found)
            (idle if unused or makes_zeros else working).append(name)
        return idle, working

    def _run(self, things: dict[str, int], without: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """The block's input and output, with stand-ins for all branches; those of `without` add nothing."""
        in_BTD = torch.zeros(B, T, self.width, device="meta", requires_grad=True)
        others = {parameter.name: None for parameter in self.needed}
        with torch.enable_grad(), torch.device("meta"), self._replaced(things, without):
            output = self.block(in_BTD, **others)
        return in_BTD, output[0] if isinstance(output, tuple) else output

    @contextmanager
    def _replaced(self, things: dict[str, int], without: Sequence[str]) -> Any:
        silent = {name for part in without for name in self.names[part]}
        had = {name: self.block.get_submodule(name) for name in things}
        try:
            for name, module in had.items():
                kind = Nothing if name in silent else _PassedOn
                setattr(self.block, name, kind(module.forward, things[name]))
            yield
        finally:
            for name, module in had.items():
                setattr(self.block, name, module)


def _needed(parameter: inspect.Parameter) -> bool:
    plain = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    return plain and parameter.default is parameter.empty
