"""In which form a checkpoint without sublayers is written.

| form | loads in | what is left out takes |
|---|---|---|
| plain | everything | nothing; whole blocks only |
| shortlm | transformers, after `import shortlm` | nothing |
| nemotron-nas | vLLM and others that know DeciLM | nothing; Llama-shaped models only |
| zeroed | everything | what it took before: its output projections are zero |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from shortlm.artifacts import CutPlan, Form
from shortlm.checkpoint import Checkpoint
from shortlm.cut.nemotron import nemotron_config
from shortlm.errors import ModelError, PlanError
from shortlm.model import (
    OUTPUTS,
    Anatomy,
    Widths,
    find_anatomy,
    left_out_of,
    modules_of,
    names_in_model,
    own_config,
    widths_of,
)
from shortlm.model.left_out import LeftOut, Modules
from shortlm.units import ATTENTION, FFN, Unit

Asked: TypeAlias = Form | Literal["auto"]


@dataclass(frozen=True)
class Result:
    """What is to be written: the config that the weights are loaded by, and what becomes of the source's tensors."""

    form: Form
    config: Any
    foreign: dict[str, Any] | None = None  # the config.json of another project's type, which takes the place of ours
    dropped: list[str] = field(default_factory=list)
    zeroed: list[str] = field(default_factory=list)


def without_empty_blocks(plan: CutPlan, anatomy: Anatomy) -> CutPlan:
    """The plan in which blocks that would lose attention and FFN go as a whole. Raises PlanError if none stays."""
    there = {ATTENTION: anatomy.attention, FFN: anatomy.ffn}
    gone: dict[int, set[str]] = {}
    for unit in plan.removed_sublayers:
        gone.setdefault(unit.block, set()).add(unit.part)
    empty = [i for i, parts in gone.items() if not any(there[part][i] for part in there if part not in parts)]
    removed = sorted({*plan.removed, *empty})
    if len(removed) == plan.model.n_blocks:
        raise PlanError(f"blocks to remove: all {len(removed)} blocks would be empty; at least one has to stay")
    left = [unit for unit in plan.removed_sublayers if unit.block not in empty]
    return plan.model_copy(update={"removed": removed, "removed_sublayers": left})


def result_of(asked: Asked, source: Checkpoint, before: Any, shorter: Any, plan: CutPlan) -> Result:
    """The result in the form that was asked for, which counts where something is left out of blocks that stay.

    `before` is the model of the source without memory, `shorter` the plain config of the blocks that stay. Raises
    PlanError or ModelError if the form can't say what the plan removes.
    """
    name, earlier, widths = plan.model.name, _earlier(before.config, plan), _widths(before.config, plan)
    if not (earlier or plan.removed_sublayers or widths):
        return Result("plain", shorter)
    if widths and asked not in ("auto", "shortlm"):
        raise PlanError(f"{name}: has widths or biases that {asked} can't say; give --as shortlm")
    if asked == "plain":
        raise PlanError(
            f"{name}: {_listed([*earlier, *plan.removed_sublayers])} can't be left out of a plain {shorter.model_type} "
            "checkpoint; give --as shortlm (loads after `import shortlm`), --as zeroed (loads everywhere, no faster), "
            "or remove whole blocks"
        )
    found = modules_of(before, plan.removed_sublayers)
    tensors = _tensors(source, before, found)
    if asked == "zeroed":
        if earlier:
            raise PlanError(
                f"{name}: the weights of {_listed([*earlier])} are gone, so zeroed can't be; give --as shortlm"
            )
        return Result("zeroed", shorter, zeroed=[n for unit in found for n in _outputs(name, unit, tensors[unit])])
    left_out = _by_block(earlier | found, plan)
    dropped = [tensor for of_unit in tensors.values() for tensor in of_unit]
    if asked == "nemotron-nas":
        foreign = nemotron_config(name, shorter, before, left_out)
        return Result("nemotron-nas", own_config(shorter, left_out), foreign, dropped)
    return Result("shortlm", own_config(shorter, left_out, _there(widths, left_out)), dropped=dropped)


def _widths(config: Any, plan: CutPlan) -> Widths:
    """The widths of the source's blocks that stay, by their new indices."""
    return {str(plan.kept.index(int(i))): layers for i, layers in widths_of(config).items() if int(i) in plan.kept}


def _there(widths: Widths, left_out: LeftOut) -> Widths:
    """Without those of layers that are left out."""
    gone = {i: {name for modules in parts.values() for name in modules} for i, parts in left_out.items()}
    found = {
        i: {path: width for path, width in layers.items() if path.partition(".")[0] not in gone.get(i, ())}
        for i, layers in widths.items()
    }
    return {i: layers for i, layers in found.items() if layers}


def _earlier(config: Any, plan: CutPlan) -> dict[Unit, Modules]:
    """What the source leaves out of blocks that stay, by its own indices."""
    units = {Unit(int(i), part): m for i, parts in left_out_of(config).items() for part, m in parts.items()}
    return {unit: modules for unit, modules in units.items() if unit.block in plan.kept}


def _by_block(modules: Mapping[Unit, Modules], plan: CutPlan) -> LeftOut:
    """As a config says it, by the blocks' new indices. Raises PlanError if no block would have attention."""
    left_out: LeftOut = {}
    for unit in sorted(modules):
        left_out.setdefault(str(plan.kept.index(unit.block)), {})[unit.part] = modules[unit]
    if all(ATTENTION in left_out.get(str(i), {}) for i in range(len(plan.kept))):
        raise PlanError(f"{plan.model.name}: no block would have attention; keep that of one block")
    return left_out


def _listed(units: list[Unit]) -> str:
    return ", ".join(map(str, sorted(units)[:8])) + (", ..." if len(units) > 8 else "")


def _tensors(source: Checkpoint, before: Any, found: Mapping[Unit, Modules]) -> dict[Unit, dict[str, str]]:
    """By unit the tensors of its modules: name in the files -> path inside the block, as the model names it."""
    path, names = find_anatomy(before).blocks_path, names_in_model(before, source)
    tensors: dict[Unit, dict[str, str]] = {}
    for unit, modules in found.items():
        block = f"{path}.{unit.block}."
        inside = {file: name.removeprefix(block) for file, name in names.items() if name.startswith(block)}
        tensors[unit] = {file: name for file, name in inside.items() if name.partition(".")[0] in modules}
    return tensors


def _outputs(name: str, unit: Unit, tensors: Mapping[str, str]) -> list[str]:
    """Those of its output projections: with them at zero it adds nothing. Raises ModelError if there are none."""
    found = [file for file, inside in tensors.items() if OUTPUTS & {*file.split("."), *inside.split(".")}]
    if not found:
        raise ModelError(f"{name}: no output projection is known among the tensors of {unit}; give --as shortlm")
    return found
