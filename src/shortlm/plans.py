"""CutPlans of given units: by hand, or by whatever has chosen them."""

from __future__ import annotations

from collections.abc import Sequence

from shortlm.artifacts import CutPlan, ModelFacts, provenance
from shortlm.errors import PlanError
from shortlm.units import BLOCK, Unit, check_units


def plan_by_hand(model: ModelFacts, units: Sequence[Unit | int]) -> CutPlan:
    """The plan that removes `units`, or whole blocks by index (negative ones count from the end).

    Raises PlanError if it can't be.
    """
    removed = check_units((Unit(u) if isinstance(u, int) else u for u in units), model.n_blocks)
    if not removed:
        raise PlanError("no blocks to remove; give their indices, e.g. --remove 21,22,23")
    kinds = {"blocks": sum(unit.part == BLOCK for unit in removed), "sublayers": sum(u.part != BLOCK for u in removed)}
    budget = " and ".join(f"{count} {kind}" for kind, count in kinds.items() if count)
    return plan_of(model, removed, "by hand", "none", budget, [])


def plan_of(
    model: ModelFacts, units: Sequence[Unit], method: str, criterion: str, budget: str, protected: list[int]
) -> CutPlan:
    """The plan that removes these units, which have been checked. Raises PlanError if the counts can't be."""
    after = model.parameters - sum(model.parameters_of(unit) for unit in units)
    if after < 1:
        raise PlanError(f"{model.name}: {len(units)} of its blocks have all its parameters; these counts are wrong")
    return CutPlan(
        model=model, removed=[unit.block for unit in units if unit.part == BLOCK],
        removed_sublayers=[unit for unit in units if unit.part != BLOCK], method=method, criterion=criterion,
        budget=budget, protected=protected, parameters_after=after, provenance=provenance(),
    )  # fmt: skip
