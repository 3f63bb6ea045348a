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
from typing import Any

from shortlm.artifacts import CutPlan
from shortlm.checkpoint import Checkpoint
from shortlm.cut.nemotron import nemotron_config, refuse_unlike_llama
from shortlm.errors import ModelError, PlanError
from shortlm.model import Anatomy, find_anatomy, left_out_of, modules_of, names_in_model, own_config
from shortlm.units import ATTENTION, FFN, Unit

AUTO, PLAIN, OWN, NEMOTRON, ZEROED = "auto", "plain", "shortlm", "nemotron-nas", "zeroed"
# What a branch's output leaves it by, wherever that is in the branch: the last part of a parameter's path, or a module.
OUTPUTS = {"o_proj", "out_proj", "c_proj", "dense", "wo", "down_proj", "down_proj_bias", "dense_4h_to_h", "fc2"}
OUTPUTS |= {"fc_out", "w2", "output_linear"}


@dataclass(frozen=True)
class Result:
    """What is to be written: the config that the weights are loaded by, and what becomes of the source's tensors."""

    form: str
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


def result_of(asked: str, source: Checkpoint, before: Any, shorter: Any, plan: CutPlan) -> Result:
    """The result in the form that was asked for, where something is left out of blocks that stay.

    `before` is the model of the source without memory, `shorter` the plain config of the blocks that stay. Raises
    PlanError or ModelError if the form can't say what the plan removes.
    """
    place, name = {original: new for new, original in enumerate(plan.kept)}, plan.model.name
    earlier = {Unit(int(i), part): m for i, parts in left_out_of(before.config).items() for part, m in parts.items()}
    earlier = {unit: modules for unit, modules in earlier.items() if unit.block in place}
    if not (earlier or plan.removed_sublayers):
        return Result(PLAIN, shorter)
    form = OWN if asked == AUTO else asked
    if form == PLAIN:
        raise PlanError(_not_plain(name, before, [*earlier, *plan.removed_sublayers]))
    if form == ZEROED and earlier:
        raise PlanError(
            f"{name}: the weights of {_listed(earlier)} are gone, so --as zeroed can't be; give --as shortlm"
        )
    found = modules_of(before, plan.removed_sublayers)
    tensors = _tensors(source, before, found)
    if form == ZEROED:
        return Result(ZEROED, shorter, zeroed=[n for unit in found for n in _outputs(name, unit, tensors[unit])])
    left_out: dict[str, Any] = {}
    for unit, modules in sorted((earlier | found).items()):
        left_out.setdefault(str(place[unit.block]), {})[unit.part] = modules
    if all(ATTENTION in left_out.get(str(i), {}) for i in place.values()):
        raise PlanError(f"{name}: no block would have attention; keep that of one block")
    foreign = None
    if form == NEMOTRON:
        refuse_unlike_llama(name, shorter, before)
        foreign = nemotron_config(name, shorter, left_out)
    dropped = [tensor for inside in tensors.values() for tensor in inside]
    return Result(form, own_config(shorter, left_out), foreign, dropped)


def _not_plain(name: str, before: Any, units: list[Unit]) -> str:
    return (
        f"{name}: {_listed(units)} can't be left out of a plain {before.config.model_type} checkpoint; give --as shortlm "
        "(loads after `import shortlm`) or --as zeroed (loads everywhere, no faster), or remove whole blocks"
    )


def _listed(units: Any) -> str:
    units = sorted(units)
    return ", ".join(map(str, units[:8])) + (", ..." if len(units) > 8 else "")


def _tensors(source: Checkpoint, before: Any, found: Mapping[Unit, Mapping[str, int]]) -> dict[Unit, dict[str, str]]:
    """By unit the tensors of its modules: name in the files -> path inside the block, as the model names it."""
    path, names = find_anatomy(before).blocks_path, names_in_model(before, source)
    tensors: dict[Unit, dict[str, str]] = {}
    for unit, modules in found.items():
        block = f"{path}.{unit.block}."
        inside = {file: name.removeprefix(block) for file, name in names.items() if name.startswith(block)}
        tensors[unit] = {file: name for file, name in inside.items() if name.partition(".")[0] in modules}
    return tensors


def _outputs(name: str, unit: Unit, tensors: Mapping[str, str]) -> list[str]:
    """Those of its output projections: with them at zero the branch adds nothing. Raises ModelError if there are none."""
    found = [file for file, inside in tensors.items() if OUTPUTS & {*file.split("."), *inside.split(".")}]
    if not found:
        raise ModelError(f"{name}: no output projection is known among the tensors of {unit}; give --as shortlm")
    return found
