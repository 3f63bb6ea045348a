"""What pruning of widths reads, and what the config alone decides: groups, how many of them stay, the form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from shortlm.errors import ModelError, PlanError
from shortlm.model import ModelFiles, StoredTensors, facts_of, find_anatomy, meta_model, open_files
from shortlm.recipe import ModelSettings, WidthSettings
from shortlm.sweep import ModelSize, Work
from shortlm.units import ATTENTION, BLOCK, FFN, unit_list
from shortlm.width.form import Form, form_of, refuse_unrunnable, sayable_heads
from shortlm.width.groups import Groups, Kept, all_groups
from shortlm.width.methods import Method, read_method
from shortlm.width.selection import Counts, Scores, best, pooled, uniform, wanted

TRIES = 2  # of meeting a budget with the biases that come on top
C = TypeVar("C", Counts, Kept)


@dataclass(frozen=True)
class Sources:
    """Of one model and one way of narrowing it."""

    files: ModelFiles
    settings: WidthSettings
    method: Method
    before: Any  # the model without memory for its weights
    groups: list[Groups]  # of all blocks
    narrowed: list[Groups]  # those that may go
    removed: float  # parameters
    counts: Counts | None  # of groups that stay; None: by the scores of all blocks
    stored: StoredTensors

    @classmethod
    def of(cls, model: ModelSettings, settings: WidthSettings) -> Sources:
        """Raises ModelError for a model that can't be narrowed soundly, PlanError for what can't be asked of it."""
        files, method = open_files(model), read_method(settings.method)
        if getattr(files.config, "quantization_config", None):
            raise ModelError(f"{model.model}: is quantised; narrow the unquantised model, then quantise the result")
        before = meta_model(files.config, model.trust_remote_code)
        groups = all_groups(find_anatomy(before))
        narrowed = _in_blocks(groups, settings, len(find_anatomy(before).blocks))
        removed, by_ratio = wanted(settings, facts_of(before, model.model).parameters, narrowed)
        stored = StoredTensors(files.checkpoint, before)
        found = cls(files, settings, method, before, groups, narrowed, removed, by_ratio, stored)
        if settings.shape == "free" and method.pools:
            if settings.form == "plain":
                raise PlanError(
                    f"--as plain: blocks keep what {method} says of each; give --shape even, or --as shortlm"
                )
            found.refuse_unrunnable({(g.block, g.part): g.count - (g.count > 1) for g in narrowed})
            return replace(found, counts=None)
        counts = by_ratio or found.to_budget(found.counted)
        found.refuse_unrunnable(counts)
        found.refuse_no_smaller(counts)
        return replace(found, counts=counts)

    def refuse_unrunnable(self, counts: Counts) -> None:
        """Raise ModelError for widths that the model's own code can't do with, PlanError for a form that can't be."""
        refuse_unrunnable(self.form_of(counts), self.before, self.files.settings.trust_remote_code)

    def refuse_no_smaller(self, counts: Counts) -> None:
        """Raise PlanError if nothing goes, or no more than biases bring."""
        if sum((g.count - counts[g.block, g.part]) * g.parameters for g in self.narrowed) <= self._added(counts):
            raise PlanError("this budget leaves the model as large as it is; give a larger one")

    def counted(self, removed: float) -> Counts:
        """How many groups of every branch stay where all blocks give the same share, `removed` parameters in all."""
        even = self.settings.shape == "even"
        counts = uniform(self.narrowed, removed, even)
        heads = next((count for (_, part), count in counts.items() if part == ATTENTION), 0)
        if even and heads and self.settings.form == "plain":
            said = sayable_heads(self.before, self.groups, heads)
            return counts if said == heads else uniform(self.narrowed, removed, even, said)
        return counts

    def to_budget(self, choose: Callable[[float], C]) -> C:
        """What `choose` gives for so many removed parameters that the written model has as many as were asked for: the
        biases that it gets are to go beside.
        """
        found = choose(self.removed)
        for _ in range(TRIES if self.settings.ratio is None and self.method.bias else 0):
            found = choose(self.removed + self._added(found))
        return found

    def _added(self, found: Mapping[tuple[int, str], Any]) -> int:
        """The parameters of biases that the written model has and the source hasn't."""
        counts = {key: n if isinstance(n, int) else len(n) for key, n in found.items()}
        after, before = (
            facts_of(meta_model(config), "").parameters for config in (self.form_of(counts).config, self.files.config)
        )
        gone = sum((g.count - counts[g.block, g.part]) * g.parameters for g in self.narrowed)
        return after - (before - gone)

    def form(self, kept: Kept) -> Form:
        """In which these groups are written. Raises PlanError where it can't be the one that was asked for."""
        return self.form_of({key: len(groups) for key, groups in kept.items()})

    def form_of(self, counts: Counts) -> Form:
        """The same for so many of every branch; branches that aren't named stay as they are."""
        every = {(g.block, g.part): counts.get((g.block, g.part), g.count) for g in self.groups}
        trust = self.files.settings.trust_remote_code
        return form_of(self.settings.form, self.before, self.groups, every, self.method.bias, trust)

    def work(self, shape: tuple[int, int]) -> Work:
        """What is asked of the sweep."""
        if self.method.gradients:
            return Work(*shape, gradients=True, weight_gradients=True)
        size = ModelSize.of(self.files.config, self.files.dtype, self.files.settings.trust_remote_code)
        return Work(*shape, states=True, held_bytes=4 * size.largest_weight // self.files.dtype.itemsize)

    def chosen(self, scores: Scores) -> Kept:
        """What stays, by the scores."""
        if self.counts is None:
            kept = self.to_budget(lambda removed: pooled(self.narrowed, scores, removed))
            self.refuse_no_smaller({key: len(groups) for key, groups in kept.items()})
            return kept
        return best(scores, self.counts)


def _in_blocks(groups: list[Groups], settings: WidthSettings, n_blocks: int) -> list[Groups]:
    for part in (ATTENTION, FFN) if settings.shape == "even" else ():
        if len({(g.count, g.inputs) for g in groups if g.part == part}) > 1:
            raise PlanError(f"the {part} of this model's blocks differs in width; give --shape free")
    if settings.blocks is None:
        return groups
    units = unit_list(settings.blocks, "--blocks")
    if any(unit.part != BLOCK or unit.block >= n_blocks for unit in units):
        raise PlanError(f"--blocks: whole blocks are meant, of 0..{n_blocks - 1}, as 4-{n_blocks - 3}")
    named = {unit.block for unit in units}
    if settings.shape == "even" and len(named) < n_blocks:
        raise PlanError("--blocks: the others would stay wider, which is not even; give --shape free")
    return [g for g in groups if g.block in named]
