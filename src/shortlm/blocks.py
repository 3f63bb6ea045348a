"""Lists of blocks: read from text, checked against a model, protected by a rule, removed by hand.

The rule '+' is Shortened LLaMA's heuristic (2402.02834): the first four and the last two. SLEB keeps both ends,
Gromov's simple baseline the last block, ShortGPT none.
"""

from __future__ import annotations

from collections import Counter

from shortlm.artifacts import MOST_BLOCKS, CutPlan, ModelFacts, provenance
from shortlm.errors import PlanError, shown


def protected_blocks(rule: str, n_blocks: int) -> list[int]:
    """Indices that `rule` protects in a model of `n_blocks`. Raises PlanError for an unknown rule."""
    named = {
        "+": [0, 1, 2, 3, n_blocks - 2, n_blocks - 1],
        "ends": [0, n_blocks - 1],
        "last": [n_blocks - 1],
        "none": [],
    }
    if rule in named:
        return sorted({i for i in named[rule] if 0 <= i < n_blocks})
    return check_blocks(block_list(rule, "--protect"), n_blocks, "--protect")


def block_list(text: str, what: str) -> list[int]:
    """'3,7,-1' as numbers; also ranges as 3-7. Raises PlanError if it is none."""
    indices: list[int] = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        first, dash, last = part[1:].partition("-")
        first = part[0] + first
        try:
            low, high = int(first), int(last) if dash else int(first)
            if not -MOST_BLOCKS <= low <= high <= MOST_BLOCKS:
                raise ValueError("no range")
            indices += range(low, high + 1)
        except ValueError as error:
            raise PlanError(
                f"{what}: {shown(part)} is no block index; give a list as 3,7 or 3-7, or +, ends, last, none"
            ) from error
        if len(indices) > MOST_BLOCKS:
            raise PlanError(f"{what}: names more than {MOST_BLOCKS:,} blocks; give each once")
    if not indices:
        raise PlanError(f"{what}: no blocks given; give a list as 3,7 or 3-7, or +, ends, last, none")
    return indices


def check_blocks(indices: list[int], n_blocks: int, what: str = "blocks to remove") -> list[int]:
    """`indices` sorted, negative ones counted from the end. Raises PlanError if out of range, repeated or all."""
    absolute = [i + n_blocks if i < 0 else i for i in indices]
    for given, index in zip(indices, absolute, strict=True):
        if not 0 <= index < n_blocks:
            raise PlanError(f"{what}: {given} is out of range; the model has blocks 0..{n_blocks - 1}")
    repeated = [i for i, times in Counter(absolute).items() if times > 1]
    if repeated:
        raise PlanError(f"{what}: {min(repeated)} is given twice")
    if len(absolute) == n_blocks:
        raise PlanError(f"{what}: all {n_blocks} blocks; at least one has to stay")
    return sorted(absolute)


def plan_by_hand(model: ModelFacts, blocks: list[int]) -> CutPlan:
    """The plan that removes `blocks` (negative ones count from the end). Raises PlanError if it can't be."""
    removed = check_blocks(blocks, model.n_blocks)
    if not removed:
        raise PlanError("no blocks to remove; give their indices, e.g. --remove 21,22,23")
    return plan_of(model, removed, "by hand", "none", f"{len(removed)} blocks", [])


def plan_of(
    model: ModelFacts, removed: list[int], method: str, criterion: str, budget: str, protected: list[int]
) -> CutPlan:
    after = model.parameters - sum(model.block_parameters[i] for i in removed)
    if after < 1:
        raise PlanError(f"{model.name}: {len(removed)} of its blocks have all its parameters; these counts are wrong")
    return CutPlan(
        model=model, removed=removed, method=method, criterion=criterion, budget=budget,
        protected=protected, parameters_after=after, provenance=provenance(),
    )  # fmt: skip
