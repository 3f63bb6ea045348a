"""How much goes: blocks, a share of them, of parameters or of the KV cache, a parameter count, a decode speed-up.

Every budget is a cost of units, a goal, and a rule. A whole block costs what it holds, a set what its units cost
together; the set is complete when the rule is met.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any, Literal

from shortlm.artifacts import ModelFacts
from shortlm.errors import PlanError
from shortlm.recipe import ChooseSettings
from shortlm.sizes import parameter_count, share
from shortlm.units import BLOCK, Unit

Cost = Callable[[Unit], float]
Costs = Mapping[str, Cost]  # what has to be asked of the model itself: "kv", "latency"
BUDGETS = ("blocks", "drop", "drop_params", "to_params", "drop_kv", "speed_up")
SLACK = 1e-9  # of a goal: costs are summed in floating point


@dataclass(frozen=True)
class Budget:
    """The goal that the cost of what goes has to meet: exactly, at least, or as nearly as can be."""

    label: str
    cost: Cost
    goal: float
    rule: Literal["exactly", "at least", "nearest"]

    def of(self, units: Iterable[Unit]) -> float:
        """What these units cost together."""
        return sum(map(self.cost, units))

    def takes(self, before: float, after: float) -> bool:
        """Whether a set that costs `before` may grow to one that costs `after`."""
        if self.rule == "exactly":
            return after <= self.goal
        if self.rule == "at least":
            return before < self.goal * (1 - SLACK) < self.goal and after > before
        return abs(after - self.goal) < abs(before - self.goal)

    def reached(self, cost: float) -> bool:
        """Whether a set of this cost removes enough; by `nearest` more may still be nearer."""
        if self.rule == "exactly":
            return cost == self.goal
        return self.rule == "nearest" or cost >= self.goal * (1 - SLACK)

    def within_reach(self, cost: float) -> bool:
        """Whether sets of at most this cost can be enough."""
        return self.rule == "nearest" or cost >= self.goal * (1 - SLACK)

    def pick(self, costs: Sequence[float]) -> int:
        """How many of a growing row of sets, whose costs begin with 0 for none, meet it; their number if too few."""
        if self.rule == "nearest":
            return min(range(len(costs)), key=lambda k: abs(costs[k] - self.goal))
        enough = [k for k, cost in enumerate(costs) if cost >= self.goal * (1 - SLACK)]
        return enough[0] if enough else len(costs)


def read_budget(settings: ChooseSettings, model: ModelFacts, costs: Costs | None = None) -> Budget:
    """The one budget that is set. `costs` are those that the model itself has to be asked for.

    Raises PlanError if there is none, several, or it can't be read.
    """
    name, value = given_budget(settings)
    if name in ("blocks", "drop"):
        count = value if name == "blocks" else int(share(value, name) * model.n_blocks + 0.5)
        label = f"{value} blocks" if name == "blocks" else f"{value} of the blocks"
        return Budget(label, lambda unit: 1.0 if unit.part == BLOCK else 0.5, count, "exactly")
    if name == "to_params":
        target = parameter_count(value)
        return Budget(
            f"at most {target:,} parameters", cache(model.parameters_of), max(0, model.parameters - target), "at least"
        )
    if name == "drop_params":
        wanted = share(value, name) * model.parameters
        return Budget(f"{value} of the parameters", cache(model.parameters_of), wanted, "nearest")
    kind = "kv" if name == "drop_kv" else "latency"
    if costs is None or kind not in costs:
        option = "--" + name.replace("_", "-")
        raise PlanError(f"{option} is asked of the model: give --model and a --method that asks it (greedy, auto)")
    cost = cache(costs[kind])
    if name == "drop_kv":
        whole = sum(cost(Unit(i)) for i in range(model.n_blocks))
        return Budget(f"{value} of the KV cache", cost, share(value, name) * whole, "at least")
    return Budget(f"decoding {value} times as fast", cost, 1 - 1 / value, "at least")  # shares of a decoding step


def given_budget(settings: ChooseSettings) -> tuple[str, Any]:
    """Its name and value. Raises PlanError unless there is exactly one."""
    given = {n: value for n in BUDGETS if (value := getattr(settings, n)) is not None}
    if len(given) != 1:
        what = "no budget" if not given else "several budgets (" + ", ".join(given) + ")"
        raise PlanError(f"{what}; give one of --blocks 6, --drop 25%, --drop-params 20%, --to-params 5.5B")
    return next(iter(given.items()))


def blocks_to_remove(budget: Budget, order: list[int], model: ModelFacts) -> int:
    """How many of `order` (unprotected blocks, least important first) go.

    Raises PlanError that names the closest that can be had, if the budget can't be met.
    """
    costs = removed_costs(budget, order, model)
    count = budget.pick(costs)
    if 0 < count < len(costs):
        return count
    if len(costs) == 1:
        raise PlanError(f"all {model.n_blocks} blocks are protected; give fewer with --protect (none, ends, last, 0,1)")
    nearest = 1 if count <= 0 else len(costs) - 1
    what = "removes no block" if count <= 0 else "needs more blocks than may go"
    left = model.parameters - sum(model.block_parameters[i] for i in order[:nearest])
    raise PlanError(
        f"budget '{budget.label}' can't be met: it {what} ({len(costs) - 1} of {model.n_blocks} may go); "
        f"the closest is --blocks {nearest}, which leaves {left:,} of {model.parameters:,} parameters"
    )


def removed_costs(budget: Budget, order: list[int], model: ModelFacts) -> list[float]:
    """What the first 0, 1, 2, ... of `order` cost; one block always stays."""
    return [0.0, *accumulate(budget.cost(Unit(i)) for i in order[: model.n_blocks - 1])]
