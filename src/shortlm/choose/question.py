"""What a method is asked, and what it answers.

A method either reads scores, or asks the model about sets of units. methods.py lists them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, cached_property

from shortlm.artifacts import BlockScores, CriterionScores, ModelFacts
from shortlm.choose.budget import Budget, blocks_to_remove
from shortlm.errors import PlanError
from shortlm.recipe import ChooseSettings
from shortlm.units import ATTENTION, BLOCK, FFN, Mask, Unit, protected_units


@dataclass(frozen=True)
class Question:
    """How much of which model is to go, in which units; units that are `kept` stay, and so do their blocks."""

    model: ModelFacts
    budget: Budget
    protected: list[int]  # blocks that can't go as a whole
    parts: tuple[str, ...] = (BLOCK,)
    kept: frozenset[Unit] = field(default_factory=frozenset)
    scores: BlockScores | None = None  # of an earlier scoring, for methods that begin there

    @cached_property
    def free(self) -> list[Unit]:
        """The units that may go, in order."""
        inside = range(self.model.n_blocks)
        return [Unit(i, part) for i in inside for part in self.parts if self._may_go(Unit(i, part))]

    @property
    def finer(self) -> bool:
        """Whether attention and FFN may go apart."""
        return self.parts != (BLOCK,)

    def _may_go(self, unit: Unit) -> bool:
        if unit.part == BLOCK:
            return unit.block not in self.protected
        counts = self.model.attention_parameters if unit.part == ATTENTION else self.model.ffn_parameters
        return not self.kept & {unit, Unit(unit.block)} and bool(counts and counts[unit.block])

    def cost(self, removed: Mask) -> float:
        """By the budget."""
        return self.budget.of(removed)

    def grown(self, removed: Mask, unit: Unit) -> Mask:
        """`removed` and one unit more. A block that has lost both attention and FFN is gone as a whole."""
        rest = {u for u in removed if u.block != unit.block}
        here = {u for u in removed if u.block == unit.block} | {unit}
        whole = Unit(unit.block) in here or {Unit(unit.block, ATTENTION), Unit(unit.block, FFN)} <= here
        return frozenset(rest | ({Unit(unit.block)} if whole else here))

    def shrunk(self, removed: Mask, unit: Unit) -> Mask:
        """`removed` less one unit. The attention or FFN of a block that is gone comes back by itself."""
        if unit in removed:
            return removed - {unit}
        other = {ATTENTION: FFN, FFN: ATTENTION}[unit.part]
        return (removed - {Unit(unit.block)}) | {Unit(unit.block, other)}

    def candidates(self, removed: Mask) -> list[Unit]:
        """The units that may go next."""
        before, gone = self.cost(removed), {unit.block for unit in removed if unit.part == BLOCK}
        apart = {unit.block: unit for unit in removed if unit.part != BLOCK}
        found = []
        for unit in self.free:
            own = apart.get(unit.block)
            if unit.block in gone or own == unit:
                continue
            whole = unit.part == BLOCK or own is not None  # of a block that has lost the other sublayer
            after = (
                before + self.budget.cost(Unit(unit.block) if whole else unit) - (self.budget.cost(own) if own else 0)
            )
            if self.budget.takes(before, after) and len(gone) + whole < self.model.n_blocks:
                found.append(unit)
        return found

    def met(self, removed: Mask) -> bool:
        """Whether this set is an answer."""
        if not removed or not self.budget.reached(self.cost(removed)):
            return False
        if not self.finer and any(unit.part != BLOCK for unit in removed):
            return False  # of another question
        return self.budget.rule != "nearest" or not self.candidates(removed)

    def leaving(self, removed: Mask) -> list[Unit]:
        """What may come back, one at a time: the units of `removed` that are free, and the sublayers of its blocks."""
        inside = [u for i, part in removed if part == BLOCK for u in (Unit(i, ATTENTION), Unit(i, FFN))]
        return [unit for unit in self.free if unit in removed or unit in inside]

    def orders(self) -> dict[str, list[Unit]]:
        """The units that may go, least important first, by every criterion of the scores that were given."""
        if self.scores is None or self.scores.model.n_blocks != self.model.n_blocks:
            return {}
        rows, free = self.scores.rows, set(self.free)
        orders = {
            name: [rows[k] for k in found.order() if rows[k] in free] for name, found in self.scores.criteria.items()
        }
        return {name: order for name, order in orders.items() if len(order) == len(free)}

    def at_least_as_small(self, removed: Mask, parts: tuple[str, ...]) -> Question:
        """The same in other units: no more parameters may stay than without `removed`."""
        goal = sum(map(self.model.parameters_of, removed))
        budget = Budget(f"at least {goal:,} parameters go", cache(self.model.parameters_of), goal, "at least")
        kept = self.kept | {Unit(0, ATTENTION)}
        return Question(self.model, budget, sorted({unit.block for unit in kept}), parts, kept)

    def counts(self) -> set[int]:
        """How many blocks may go: they may be of several sizes, so both the smallest and the largest first.

        Raises PlanError if no order of the blocks meets the budget.
        """
        found, by_size = set(), sorted(self._free_blocks(), key=lambda i: self.budget.cost(Unit(i)))
        for order in (by_size, by_size[::-1]):
            with suppress(PlanError):
                found.add(blocks_to_remove(self.budget, order, self.model))
        return found or {blocks_to_remove(self.budget, by_size, self.model)}

    def count(self) -> int:
        """The number of blocks that go. Raises PlanError if it depends on which, or none is left to choose from."""
        counts = self.counts()
        if len(counts) > 1:
            raise PlanError(
                f"budget '{self.budget.label}' is met by {' or '.join(map(str, sorted(counts)))} blocks, since they "
                "are of several sizes; give a number with --blocks"
            )
        (count,) = counts
        if count >= len(self._free_blocks()):
            raise PlanError(
                f"{count} of {len(self._free_blocks())} blocks are to go that may; there is nothing to choose"
            )
        return count

    @property
    def possible(self) -> bool:
        """Whether any set of the free units meets the budget."""
        return self.met(self._largest())

    def _largest(self) -> Mask:
        """As much as may go, the largest units first."""
        removed: Mask = frozenset()
        while units := self.candidates(removed):
            removed = self.grown(removed, max(units, key=lambda unit: self.cost(self.grown(removed, unit))))
        return removed

    def refuse_impossible(self) -> None:
        """Raise PlanError for a budget that no set of the free units meets."""
        if not self.finer:
            self.counts()
            return
        if not self.free:
            raise PlanError("no unit may go: all are protected; give fewer with --protect (none, ends, last, 0,1)")
        if not self.possible:
            most = self.cost(self._largest())
            raise PlanError(
                f"budget '{self.budget.label}' can't be met: all {len(self.free)} units that may go come to "
                f"{most:.6g} of the {self.budget.goal:.6g} that are needed; ask for less, or protect less"
            )

    def _free_blocks(self) -> list[int]:
        return [i for i in range(self.model.n_blocks) if i not in self.protected]


@dataclass(frozen=True)
class Choice:
    """The units that go, and by what: a criterion and its scores of all blocks, if there are any."""

    units: list[Unit]
    criterion: str
    scores: list[float] | None = None
    agreement: float | None = None


Reading = Callable[[Question, str, CriterionScores], Choice]


def question_of(
    settings: ChooseSettings, model: ModelFacts, budget: Budget, scores: BlockScores | None = None
) -> Question:
    """Raises PlanError for units or a protection that can't be."""
    parts = tuple(settings.parts())
    kept = set(protected_units(settings.protect, model.n_blocks))
    if parts != (BLOCK,):
        kept.add(Unit(0, ATTENTION))  # cached decoding reads the cache's length from the first layer
        for part, counts in ((ATTENTION, model.attention_parameters), (FFN, model.ffn_parameters)):
            if part in parts and not any(counts or []):
                given = ",".join(settings.units)
                raise PlanError(
                    f"--units {given}: {model.name} ({model.architecture}) has no {part} that can be told "
                    "apart from its blocks; give --units blocks"
                )
    return Question(model, budget, sorted({unit.block for unit in kept}), parts, frozenset(kept), scores)
