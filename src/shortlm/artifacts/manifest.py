"""The Manifest of a checkpoint that was made from another one: which model was the first, and what was done to it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, model_validator

from shortlm.artifacts.base import ONE_MISTAKE, Artifact, ModelFacts, Provenance
from shortlm.artifacts.cut_plan import CutPlan, CutStep, Equivalence
from shortlm.artifacts.narrowing import WidthStep
from shortlm.artifacts.quantizing import QuantizeStep
from shortlm.artifacts.repairing import RepairStep
from shortlm.errors import PlanError
from shortlm.paths import beginning, user_path
from shortlm.units import Unit

# The kinds of edits.
AnyStep: TypeAlias = Annotated[CutStep | RepairStep | WidthStep | QuantizeStep, Field(discriminator="kind")]
MOST_STEPS = 1000
ONE_CUT = {"plan": "plan", "blocks": "blocks", "bytes_before": "bytes_before", "bytes_after": "bytes_after",
           "proof": "equivalence", "provenance": "provenance"}  # fmt: skip


class Manifest(Artifact):
    """`manifest.json` of an edited checkpoint: the model at the beginning, and every step from there.

    What was one cut and nothing else (before there were steps) is read as such a list; the base is then the model
    that was cut, which may itself be a cut one with a manifest of its own.
    """

    kind: Literal["Manifest"] = "Manifest"
    base: ModelFacts = Field(description="The model that the first step was done to.")
    base_path: str | None = Field(None, description="The folder of the base, where that was local.")
    steps: Annotated[list[AnyStep], ONE_MISTAKE] = Field(min_length=1, max_length=MOST_STEPS)

    @model_validator(mode="before")
    @classmethod
    def _of_one_cut(cls, data: Any) -> Any:
        """The form before there were steps."""
        if not isinstance(data, dict) or "plan" not in data or "steps" in data:
            return data
        step = {"kind": "cut"} | {new: data[old] for old, new in ONE_CUT.items() if old in data}
        plan = data["plan"]
        base = plan.get("model") if isinstance(plan, dict) else getattr(plan, "model", None)
        return {name: data[name] for name in data if name not in ONE_CUT} | {"base": base, "steps": [step]}

    @model_validator(mode="after")
    def _fits(self) -> Manifest:
        _ = self.blocks  # raises ValueError where the steps don't follow on one another
        return self

    @property
    def blocks(self) -> list[int]:
        """The original index of every block of this checkpoint."""
        return blocks_after(self.steps, self.base.n_blocks)

    @property
    def left_out(self) -> list[Unit]:
        """Attention and FFN that were left out of blocks that are here, by the blocks' original indices."""
        blocks, units = list(range(self.base.n_blocks)), set[Unit]()
        for step in self.steps:
            removed = step.plan.removed_sublayers if isinstance(step, CutStep) else []
            units |= {Unit(blocks[unit.block], unit.part) for unit in removed}
            blocks = step.blocks_after(blocks)
        return sorted(unit for unit in units if unit.block in blocks)

    @property
    def last_cut(self) -> CutStep | None:
        """The last step that removed blocks, if there is one."""
        return next((step for step in reversed(self.steps) if isinstance(step, CutStep)), None)

    @property
    def repair(self) -> RepairStep | None:
        """The repair of the last cut, if there is one."""
        last = self.steps[-1]
        return last if isinstance(last, RepairStep) else None

    @property
    def plan(self) -> CutPlan | None:
        """Of the last cut: its indices are those of the model that it found."""
        return self.last_cut.plan if self.last_cut else None

    @property
    def equivalence(self) -> Equivalence | None:
        """How near the last step that left something out came to the model that it found; None if not asked."""
        last = next((step for step in reversed(self.steps) if isinstance(step, CutStep | WidthStep)), None)
        return last.equivalence if last else None

    @property
    def parameters_after(self) -> int:
        """Of this checkpoint: as the last step that changed their number says."""
        for step in reversed(self.steps):
            if isinstance(step, CutStep):
                return step.plan.parameters_after
            if isinstance(step, WidthStep):
                return step.parameters_after
        return self.base.parameters

    @property
    def bytes_before(self) -> int:
        """The weights that the last cut found, or the first step where nothing was cut."""
        return (self.last_cut or self.steps[0]).bytes_before

    @property
    def bytes_after(self) -> int:
        """The weights of this checkpoint."""
        return self.steps[-1].bytes_after

    @property
    def provenance(self) -> Provenance:
        """Of the last step."""
        return self.steps[-1].provenance

    def followed_by(self, step: AnyStep) -> Manifest:
        """The manifest of what `step` has made of this checkpoint."""
        return Manifest(base=self.base, base_path=self.base_path, steps=[*self.steps, step])


def blocks_after(steps: list[AnyStep], n_blocks: int) -> list[int]:
    """Which blocks of a model of `n_blocks` are left after these steps. Raises ValueError if they don't fit."""
    blocks = list(range(n_blocks))
    for step in steps:
        blocks = step.blocks_after(blocks)
    return blocks


def manifest_of(folder: Path) -> Manifest | None:
    """That of an edited checkpoint; None if it is none, or if the file of that name is another tool's.

    Raises ShortLMError for a manifest of ours that can't be read.
    """
    path = folder / "manifest.json"
    return Manifest.load(path) if path.is_file() and b'"Manifest"' in beginning(path) else None


def load_plan(path: Path | str) -> CutPlan:
    """A CutPlan from its own file, or that of the last cut from a checkpoint's `manifest.json`."""
    path = user_path(path)
    if path.is_dir():
        path = path / "manifest.json"
    if path.is_file() and b'"Manifest"' in beginning(path):
        if plan := Manifest.load(path).plan:
            return plan
        raise PlanError(f"{path}: tells of no cut; give the plan of another checkpoint")
    return CutPlan.load(path)
