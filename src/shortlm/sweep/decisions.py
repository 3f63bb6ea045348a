"""What a set of masks makes of each block, and how many block forwards that takes.

A mask is a path: one decision per block. Masks share a state as long as their paths agree, so the distinct prefixes of
all paths are the states, and those that end in another decision than "drop" are the block forwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from shortlm.units import ATTENTION, BLOCK, FFN, Mask, units_of

KEEP, DROP, WITHOUT_ATTENTION, WITHOUT_FFN = range(4)
DECISIONS = (DROP, KEEP, WITHOUT_ATTENTION, WITHOUT_FFN)  # as they are carried out, the cheapest first
LEFT_OUT = {WITHOUT_ATTENTION: ATTENTION, WITHOUT_FFN: FFN}
WITHOUT = {BLOCK: DROP, ATTENTION: WITHOUT_ATTENTION, FFN: WITHOUT_FFN}
Path = bytes  # a decision per block


def path_of(mask: Mask, n_blocks: int) -> Path:
    """The decisions of a mask. A block without attention and FFN is one that is dropped."""
    path = bytearray(n_blocks)
    for unit in mask:
        if not 0 <= unit.block < n_blocks:
            raise IndexError(f"{unit} of {n_blocks} blocks")
        decision = WITHOUT[unit.part]
        path[unit.block] = decision if path[unit.block] in (KEEP, decision) else DROP
    return bytes(path)


def single_removals(n_blocks: int, parts: Iterable[str] = (BLOCK,)) -> list[Mask]:
    """The masks without block 0, without block 1, ...; or without each of these parts of every block."""
    return [frozenset({unit}) for unit in units_of(parts, n_blocks)]


def count_forwards(paths: Iterable[Path], start: Iterable[Path] = (b"",)) -> int:
    """Block forwards that these paths take: the nodes of their prefix tree, from the longest prefix in `start` on."""
    return sum(_nodes(members, len(prefix)) for prefix, members in by_prefix(paths, start).items())


def by_prefix(paths: Iterable[Path], known: Iterable[Path]) -> dict[Path, list[Path]]:
    """Distinct paths, in order, by the longest of the known prefixes (b"" is one) that each begins with."""
    found: dict[Path, list[Path]] = {}
    known = frozenset(known)
    for path in sorted(set(paths)):
        prefix = next(path[:i] for i in range(len(path), -1, -1) if path[:i] in known)
        found.setdefault(prefix, []).append(path)
    return found


def _nodes(paths: list[Path], begin: int) -> int:
    """Block forwards of these paths, which are in order, from block `begin` on, where they still agree."""
    taken, before = 0, paths[0][:begin]
    for path in paths:
        taken += sum(decision != DROP for decision in path[_agreement(before, path) :])
        before = path
    return taken


def _agreement(one: Path, other: Path) -> int:
    """How many decisions two paths begin with alike."""
    shorter = min(len(one), len(other))
    return next((i for i in range(shorter) if one[i] != other[i]), shorter)


def in_chunks(paths: Sequence[Path], most: int) -> list[list[Path]]:
    """Distinct paths in order, so that neighbours agree for long, in chunks of at most `most`, of nearly equal size.

    A chunk has never more states than paths, whatever the block: prefixes of few paths are few.
    """
    ordered = sorted(set(paths))
    count = -(-len(ordered) // max(1, most))
    bounds = [len(ordered) * k // count for k in range(count + 1)] if count else []
    return [ordered[a:b] for a, b in pairwise(bounds)]
