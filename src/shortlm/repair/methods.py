"""The ways of repair, their options and published settings."""

from __future__ import annotations

from dataclasses import dataclass

from shortlm.errors import RepairError
from shortlm.recipe.specs import Options, read_spec
from shortlm.units import ATTENTION, FFN

METHODS = {
    "auto": Options(),
    "refit": Options({"attention": True, "everywhere": True}),
    "linear": Options(
        {"ridge": True, "objective": "squares"},
        presets={
            "replaceme": {"ridge": False},
            "replaceme-cosine": {"ridge": False, "objective": "cosine"},
        },
        choices={"objective": ("squares", "cosine")},
    ),
    "scale": Options({}, presets={"prune-and-comp": {}}),
    "none": Options(),
}


@dataclass(frozen=True)
class Repair:
    """A way of repair. `solves` for all of a weight ("refit"), for a map behind it ("linear"), or for nothing."""

    name: str
    solves: str = ""
    parts: tuple[str, ...] = (FFN,)  # whose output projections
    everywhere: bool = False  # behind the first gap; else only before gaps
    ridge: bool = True
    objective: str = "squares"
    scales: bool = False

    def __str__(self) -> str:
        return self.name


def repairs_widths(spec: str) -> bool:
    """Whether a method does anything where no block is missing. Raises RepairError as `read_method` does."""
    return read_method(spec).everywhere


def read_method(spec: str) -> Repair:
    """What a spec asks for. Raises RepairError, naming the nearest known name."""
    name, options = read_spec(spec, "repair method", METHODS, RepairError)
    if name == "scale":
        return Repair(spec, scales=True)
    if name == "linear":
        cosine = options["objective"] == "cosine"  # by gradient steps, which know no ridge
        return Repair(spec, "linear", ridge=options["ridge"] and not cosine, objective=options["objective"])
    if name == "none":
        return Repair(spec)
    attention = options.get("attention", True)
    parts = (ATTENTION, FFN) if attention else (FFN,)
    return Repair(spec, "refit", parts, everywhere=options.get("everywhere", True))
