"""Blocks that are never removed.

'+' is Shortened LLaMA's heuristic (2402.02834): the first four and the last two. SLEB keeps
both ends, Gromov's simple baseline the last block, ShortGPT none.
"""

from __future__ import annotations

from shortlm.errors import PlanError
from shortlm.model import check_blocks

MOST = 100_000  # no model has more blocks; bounds a range before it is built


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
            if not -MOST <= low <= high <= MOST:
                raise ValueError("no range")
            indices += range(low, high + 1)
        except ValueError as error:
            raise PlanError(
                f"{what}: '{part}' is no block index; give a list as 3,7 or 3-7, or +, ends, last, none"
            ) from error
    if not indices:
        raise PlanError(f"{what}: no blocks given; give a list as 3,7 or 3-7, or +, ends, last, none")
    return indices
