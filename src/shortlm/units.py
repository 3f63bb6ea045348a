"""Units: what can be left out of a model. A block, its attention or its FFN, written 7, 7.attention, 7.ffn.

Lists of units are read from text, checked against a model, and protected by a rule. The rule '+' is Shortened LLaMA's
heuristic (2402.02834): the first four blocks and the last two. SLEB keeps both ends, Gromov's simple baseline the last
block, ShortGPT none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from shortlm.errors import PlanError, shown

MOST_BLOCKS = 10_000  # of a list; models have fewer
BLOCK, ATTENTION, FFN = "block", "attention", "ffn"
PARTS = (BLOCK, ATTENTION, FFN)
WAY_OUT = "give a list as 3,7-9 or 7.attention,7.ffn, or +, ends, last, none"
ITEM = re.compile(r"(-?\d{1,9})(?:-(-?\d{1,9}))?(?:\.([a-z]+))?")


class Unit(NamedTuple):
    """A block, or the attention or the FFN of a block."""

    block: int
    part: str = BLOCK

    def __str__(self) -> str:
        return f"{self.block}" if self.part == BLOCK else f"{self.block}.{self.part}"


Mask = frozenset[Unit]  # the units that are left out


def units_of(parts: Iterable[str], n_blocks: int) -> list[Unit]:
    """These parts of every block; those of a block next to each other, in the order of PARTS."""
    wanted = set(parts)
    return [Unit(i, part) for i in range(n_blocks) for part in PARTS if part in wanted]


def blocks_mask(blocks: Iterable[int]) -> Mask:
    """The mask without these whole blocks."""
    return frozenset(Unit(i) for i in blocks)


def unit_list(text: str, what: str) -> list[Unit]:
    """'3,7-9,12.attention,-1' as units; a range may be one of sublayers, 3-7.ffn. Raises PlanError if it is none."""
    units: list[Unit] = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        match = ITEM.fullmatch(item)
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if match is None or not -MOST_BLOCKS <= low <= high <= MOST_BLOCKS or (match[3] or BLOCK) not in PARTS:
            raise PlanError(f"{what}: {shown(item)} is no block index, and no attention or ffn of one; {WAY_OUT}")
        units += [Unit(i, match[3] or BLOCK) for i in range(low, high + 1)]
        if len(units) > 3 * MOST_BLOCKS:
            raise PlanError(f"{what}: names more than {3 * MOST_BLOCKS:,} units; give each once")
    if not units:
        raise PlanError(f"{what}: no blocks given; {WAY_OUT}")
    return units


def check_units(units: Iterable[Unit], n_blocks: int, what: str = "blocks to remove") -> list[Unit]:
    """`units` in order, negative blocks counted from the end.

    Raises PlanError if one is out of range, given twice or with its whole block, or if no block stays.
    """
    absolute = []
    for unit in units:
        block = unit.block + n_blocks if unit.block < 0 else unit.block
        if not 0 <= block < n_blocks:
            raise PlanError(f"{what}: {unit} is out of range; the model has blocks 0..{n_blocks - 1}")
        absolute.append(Unit(block, unit.part))
    repeated = [unit for unit, times in Counter(absolute).items() if times > 1]
    if repeated:
        raise PlanError(f"{what}: {min(repeated)} is given twice")
    whole = {unit.block for unit in absolute if unit.part == BLOCK}
    inside = [unit for unit in absolute if unit.part != BLOCK and unit.block in whole]
    if inside:
        raise PlanError(f"{what}: {min(inside)} is part of block {min(inside).block}, which is given too")
    if n_blocks == len(whole):
        raise PlanError(f"{what}: all {n_blocks} blocks; at least one has to stay")
    return sorted(absolute, key=lambda unit: (unit.block, PARTS.index(unit.part)))


def check_blocks(indices: list[int], n_blocks: int, what: str = "blocks to remove") -> list[int]:
    """The same of whole blocks."""
    return [unit.block for unit in check_units(map(Unit, indices), n_blocks, what)]


def protected_units(rule: str, n_blocks: int) -> list[Unit]:
    """Units that `rule` protects in a model of `n_blocks`. Raises PlanError for an unknown rule."""
    named = {
        "+": [0, 1, 2, 3, n_blocks - 2, n_blocks - 1],
        "ends": [0, n_blocks - 1],
        "last": [n_blocks - 1],
        "none": [],
    }
    if rule in named:
        return [Unit(i) for i in sorted({i for i in named[rule] if 0 <= i < n_blocks})]
    return check_units(unit_list(rule, "--protect"), n_blocks, "--protect")


def protected_blocks(rule: str, n_blocks: int) -> list[int]:
    """Blocks that can't go as a whole: a block of which a sublayer is protected has to stay."""
    return sorted({unit.block for unit in protected_units(rule, n_blocks)})
