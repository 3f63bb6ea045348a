"""What a method is asked, and what it answers.

A method either reads scores, or asks the model about sets of units. methods.py lists them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from shortlm.artifacts import CriterionScores, ModelFacts
from shortlm.choose.budget import Budget, blocks_to_remove
from shortlm.errors import PlanError
from shortlm.sweep import Evaluator
from shortlm.units import Unit


@dataclass(frozen=True)
class Question:
    """How much of which model is to go; blocks that are `protected` stay."""

    model: ModelFacts
    budget: Budget
    protected: list[int]

    @property
    def free(self) -> list[int]:
        """The blocks that may go."""
        return [i for i in range(self.model.n_blocks) if i not in self.protected]

    def counts(self) -> set[int]:
        """How many blocks may go: they may be of several sizes, so both the smallest and the largest first.

        Raises PlanError if no order of the blocks meets the budget.
        """
        found, by_size = set(), sorted(self.free, key=lambda i: self.model.block_parameters[i])
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
        if count >= len(self.free):
            raise PlanError(f"{count} of {len(self.free)} blocks are to go that may; there is nothing to choose")
        return count


@dataclass(frozen=True)
class Choice:
    """The units that go, and by what: a criterion and its scores of all blocks, if there are any."""

    units: list[Unit]
    criterion: str
    scores: list[float] | None = None
    agreement: float | None = None


Reading = Callable[[Question, str, CriterionScores], Choice]
Asking = Callable[[Question, Evaluator], Choice]
