"""Bad inputs of every kind, and what has to hold for each: one clear line, exit code 2, nothing lost or half-written.

A file per kind of input lists its cases; `running.py` runs one and says what is wrong with how it went.
"""

from __future__ import annotations

import random
from functools import cache

from hostile import artifacts, checkpoints, devices, names, numbers, recipes, texts, weights
from hostile.case import Case, World

KINDS = {
    kind.__name__.rpartition(".")[2]: kind
    for kind in (numbers, devices, names, recipes, artifacts, checkpoints, weights, texts)
}


@cache
def cases(kind: str) -> list[Case]:
    """All cases of a kind, in a fixed order; of several with one name the first."""
    return list({case.name: case for case in reversed(KINDS[kind].cases())}.values())[::-1]


def sample(kind: str, count: int) -> list[Case]:
    """Some of them: the same ones every time, none that takes long."""
    return random.Random(kind).sample([case for case in cases(kind) if not case.long], count)


__all__ = ["KINDS", "Case", "World", "cases", "sample"]
