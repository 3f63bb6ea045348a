"""Blocks that are never removed.

'+' is Shortened LLaMA's heuristic (2402.02834): the first four and the last two. SLEB keeps
both ends, Gromov's simple baseline the last block, ShortGPT none.
"""

from __future__ import annotations

from shortlm.errors import PlanError
from shortlm.model import check_blocks


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
    indices = block_list(rule, "--protect")
    return check_blocks(indices, n_blocks, "--protect") if indices else []


def block_list(text: str, what: str) -> list[int]:
    """'3,7,-1' as numbers; also ranges as 3-7. Raises PlanError if it is none."""
    indices: list[int] = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        first, dash, last = part[1:].partition("-")
        first = part[0] + first
        try:
            indices += range(int(first), int(last) + 1) if dash else [int(first)]
        except ValueError as error:
            raise PlanError(
                f"{what}: '{part}' is no block index; give a list as 3,7 or 3-7, or +, ends, last, none"
            ) from error
    return indices
