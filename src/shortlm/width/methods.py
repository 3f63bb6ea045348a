"""The ways of pruning widths, their options, and what each of them reads."""

from __future__ import annotations

from dataclasses import dataclass

from shortlm.errors import PlanError
from shortlm.recipe.specs import Options, read_spec

METHODS = {"flap": Options({"bias": True}), "wanda-sp": Options(), "llm-pruner": Options()}


@dataclass(frozen=True)
class Method:
    """A way of pruning widths.

    `gradients`: it reads a backward sweep, else what enters the output projections. `pools`: heads and channels of all
    blocks compete, else every block gives the same share. `in_turn`: a block is narrowed before the next one is seen.
    """

    name: str
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
        return Method(spec, in_turn=True)
    return Method(spec, pools=True, bias=options["bias"])
