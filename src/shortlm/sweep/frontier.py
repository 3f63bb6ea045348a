"""The order in which states go through the blocks of a model.

A group is a state and the paths that share it; it waits in front of a block. With blocks in memory, the first block
that any group waits for comes next, so that calls are filled and weights stay in the caches, until `most` groups are
there; then the deepest ones go first, so that they end. Every prefix of decisions is computed once either way, and what
is alive is bounded, however many paths there are. With blocks from disk, all pass a block before the next one comes.

The scheduler runs the same order with numbers in place of states, and counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from shortlm.sweep.decisions import DECISIONS, DROP, Path, by_prefix


@dataclass
class Group:
    """Paths that agree on all blocks before the one that comes next, in order, and their state."""

    state: Any
    paths: list[Path]


class Frontier:
    """Groups by the block that they wait for; `start` holds the states of known prefixes, b"" among them."""

    def __init__(self, paths: Iterable[Path], start: Mapping[Path, Any], n_blocks: int):
        self.n_blocks, self.groups = n_blocks, 0
        self.waiting: list[list[Group]] = [[] for _ in range(n_blocks + 1)]  # the last ones have passed all blocks
        for prefix, members in by_prefix(paths, start).items():
            self.add(len(prefix), start[prefix], members)

    def add(self, i: int, state: Any, paths: list[Path]) -> None:
        """A state that waits for block i, and whose it is."""
        self.waiting[i].append(Group(state, paths))
        self.groups += 1

    def next_block(self, most: int) -> int | None:
        """The block to call: the first one that any group waits for, the last one if there are `most` groups."""
        some = [i for i in range(self.n_blocks) if self.waiting[i]]
        return None if not some else some[0] if self.groups < most else some[-1]

    def taken(self, i: int, together: int) -> list[Group]:
        """Up to so many groups that wait for block i, no longer waiting."""
        here = self.waiting[i]
        self.waiting[i], part = here[:-together], here[-together:]
        self.groups -= len(part)
        return part[::-1]

    def filled(self, together: int) -> list[Group]:
        """As many groups as fill a call, of those that have passed all blocks; none if they don't fill one."""
        return self.taken(self.n_blocks, together) if len(self.waiting[-1]) >= together else []


def split(i: int, groups: Sequence[Group]) -> dict[int, list[Group]]:
    """What the paths of some groups decide on block i: the groups that they make, by decision."""
    found: dict[int, list[Group]] = {decision: [] for decision in DECISIONS}
    for group in groups:
        for decision, paths in groupby(group.paths, key=lambda path: path[i]):
            found[decision].append(Group(group.state, list(paths)))
    return found


def most_groups(n_blocks: int, together: int) -> int:
    """How many groups may wait before the deepest ones go first: room for all single removals, and for filled calls."""
    return n_blocks + 1 + 2 * together


def most_alive(paths: Sequence[Path], n_blocks: int, together: int, most: int) -> int:
    """The most states that are alive at once while these paths go through blocks in memory."""
    frontier, alive, peak, made = Frontier(paths, {b"": 0}, n_blocks), Counter({0: 1}), 1, 0
    while (i := frontier.next_block(most)) is not None:
        part = frontier.taken(i, together)
        for decision, groups in split(i, part).items():
            for group in groups:
                made += decision != DROP
                state = group.state if decision == DROP else made
                frontier.add(i + 1, state, group.paths)
                alive[state] += 1
        peak = max(peak, len(alive))
        part += frontier.filled(together)
        alive -= Counter(group.state for group in part)  # those that nobody holds are forgotten
    return peak
