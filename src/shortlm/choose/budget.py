"""How much goes: a number of blocks, a share of blocks, a share of parameters, a parameter count."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

from shortlm.artifacts import ModelFacts
from shortlm.errors import PlanError, shortened
from shortlm.recipe import ChooseSettings
from shortlm.sizes import quantity


@dataclass(frozen=True)
class Budget:
    """Where to stop in the growing removals [], [a], [a, b], ...

    `pick` takes their removed parameters (cumulated, from 0 blocks on) and gives the number of blocks; `wanted`
    is the share of parameters that is to be met as closely as can be, if there is one.
    """

    label: str
    pick: Callable[[list[int]], int]
    wanted: float | None = None


def read_budget(settings: ChooseSettings, model: ModelFacts) -> Budget:
    """The one budget that is set. Raises PlanError if there is none, several, or it can't be read."""
    given = {n: getattr(settings, n) for n in ("blocks", "drop", "drop_params", "to_params")}
    given = {n: v for n, v in given.items() if v is not None}
    if len(given) != 1:
        what = "no budget" if not given else "several budgets (" + ", ".join(given) + ")"
        raise PlanError(f"{what}; give one of --blocks 6, --drop 25%, --drop-params 20%, --to-params 5.5B")
    name, value = next(iter(given.items()))
    if name == "blocks":
        return Budget(f"{value} blocks", lambda removed: value)
    if name == "to_params":
        return _at_most(parameter_count(value), model)
    part = share(value, name)
    if name == "drop":
        return Budget(f"{value} of the blocks", lambda removed: int(part * model.n_blocks + 0.5))
    wanted = part * model.parameters
    return Budget(
        f"{value} of the parameters",
        lambda removed: min(range(len(removed)), key=lambda k: abs(removed[k] - wanted)),
        wanted,
    )


def _at_most(target: int, model: ModelFacts) -> Budget:
    def pick(removed: list[int]) -> int:
        fitting = [k for k, gone in enumerate(removed) if model.parameters - gone <= target]
        return fitting[0] if fitting else len(removed)

    return Budget(f"at most {target:,} parameters", pick)


def blocks_to_remove(budget: Budget, order: list[int], model: ModelFacts) -> int:
    """How many of `order` (unprotected blocks, least important first) go.

    Raises PlanError that names the closest that can be had, if the budget can't be met.
    """
    removed = removed_parameters(order, model)
    count = budget.pick(removed)
    if 0 < count < len(removed):
        return count
    if len(removed) == 1:
        raise PlanError(f"all {model.n_blocks} blocks are protected; give fewer with --protect (none, ends, last, 0,1)")
    nearest = 1 if count <= 0 else len(removed) - 1
    what = "removes no block" if count <= 0 else "needs more blocks than may go"
    left = model.parameters - removed[nearest]
    raise PlanError(
        f"budget '{budget.label}' can't be met: it {what} ({len(removed) - 1} of {model.n_blocks} may go); "
        f"the closest is --blocks {nearest}, which leaves {left:,} of {model.parameters:,} parameters"
    )


def removed_parameters(order: list[int], model: ModelFacts) -> list[int]:
    """How many parameters go with the first 0, 1, 2, ... of `order`; one block always stays."""
    return [0, *accumulate(model.block_parameters[i] for i in order[: model.n_blocks - 1])]


def share(text: str, name: str) -> float:
    """'25%' or '0.25' as 0.25. Raises PlanError unless it lies between 0 and 1."""
    number = re.fullmatch(r"\s*([0-9.]+)\s*(%?)\s*", text[:100])
    option = "--" + name.replace("_", "-")
    try:
        value = float(number[1]) / (100 if number[2] else 1) if number else -1.0
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise PlanError(
            f"{option} {shortened(text, 100)}: a share between 0 and 100% is needed, e.g. 25% "
            "(a number of blocks is --blocks)"
        )
    return value


def parameter_count(text: str) -> int:
    """'5.5B', '780M' or '5524115456'. Raises PlanError if it is none."""
    try:
        return quantity(text)
    except ValueError as error:
        raise PlanError(
            f"--to-params {shortened(text, 100)}: a parameter count is needed, e.g. 5.5B, 780M or 5524115456"
        ) from error
