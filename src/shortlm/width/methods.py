"""The ways of pruning widths, their options, and what each of them reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from shortlm.errors import PlanError
from shortlm.recipe.specs import Options, read_spec
from shortlm.width.criteria import InputSums, flap, wanda_sp
from shortlm.width.groups import Groups

METHODS = {"flap": Options({"bias": True}), "wanda-sp": Options(), "llm-pruner": Options()}


@dataclass(frozen=True)
class Method:
    """A way of pruning widths.

    `by_inputs`: the score by what enters the output projections, unless `gradients` are read. `pools`: heads and
    channels of all blocks compete, else every block gives the same share. `in_turn`: a block is narrowed before the
    next one is seen.
    """

    name: str
    by_inputs: Callable[[Groups, torch.Tensor, InputSums], torch.Tensor] = field(default=flap, repr=False)
    gradients: bool = False
    pools: bool = False
    in_turn: bool = False
    bias: bool = False

    def __str__(self) -> str:
        return self.name


def read_method(spec: str) -> Method:
    """What a spec asks for. Raises PlanError, naming the nearest known name."""
    name, options = read_spec(spec, "width method", METHODS, PlanError)
    if name == "llm-pruner":
        return Method(spec, gradients=True)
    if name == "wanda-sp":
        return Method(spec, wanda_sp, in_turn=True)
    return Method(spec, flap, pools=True, bias=options["bias"])
