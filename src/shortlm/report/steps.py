"""The steps of a manifest in words, and the commands that repeat them."""

from __future__ import annotations

from dataclasses import dataclass

from shortlm.artifacts import AnyStep, CutStep, Manifest, RepairStep
from shortlm.report.markdown import public, shell_word
from shortlm.report.repair import changed, nats, no_copies
from shortlm.report.units import units_text
from shortlm.units import Unit


@dataclass(frozen=True)
class StepRow:
    """One step: what it did, in the indices of the first model."""

    number: int
    step: AnyStep
    what: str


def step_rows(manifest: Manifest | None) -> list[StepRow]:
    """All of them, in the order in which they were done."""
    if manifest is None:
        return []
    found, indices = [], list(range(manifest.base.n_blocks))
    for number, step in enumerate(manifest.steps, start=1):
        what = _cut(step, indices) if isinstance(step, CutStep) else _repaired(step)
        found.append(StepRow(number, step, what))
        indices = step.blocks_after(indices)
    return found


def commands(manifest: Manifest, base: str) -> list[str]:
    """Command lines that make this checkpoint of `base` again; a repair that changed nothing needs none."""
    steps = [step for step in manifest.steps if isinstance(step, CutStep) or changed(step)]
    found, model = [], base
    for number, step in enumerate(steps, start=1):
        name = "shorter" if isinstance(step, CutStep) else "repaired"
        out = name if len(steps) < 3 else f"{name}-{number}"
        if isinstance(step, CutStep):
            last = step is manifest.last_cut
            found.append(
                f"shortlm cut --model {shell_word(model)} {'--plan manifest.json' if last else _removal(step)}"
            )
        else:
            found.append(f"shortlm repair {shell_word(model)} {_options(step, manifest, base)}")
        found[-1] += f" --out {out}"
        model = out
    return found


def _cut(step: CutStep, indices: list[int]) -> str:
    gone = [Unit(indices[unit.block], unit.part) for unit in step.plan.units]
    way = step.plan.method if step.plan.criterion == "none" else f"{step.plan.criterion}, {step.plan.method}"
    blocks, layers = len(step.plan.removed), len(step.plan.removed_sublayers)
    counts = f"{blocks} of" if blocks else f"{layers} attention or FFN layers of"
    more = f" and {layers} attention or FFN layers of others" if blocks and layers else ""
    return f"Removed {counts} {step.plan.model.n_blocks} blocks{more}: {units_text(gone)} ({way})"


def _repaired(step: RepairStep) -> str:
    loss = dict(nats(step.loss))
    fell = f"{loss['cut']} → {loss['repaired']} nats per token (dense {loss['dense']})"
    if not step.delivered:
        return f"Repair by {step.method} made the loss worse and was not taken: {fell}"
    if not (found := no_copies(step)):
        return f"Repair by {step.method} changed no weight"
    return f"Repaired by {step.method} against {public(step.against.name)}: {found}; {fell}"


def _removal(step: CutStep) -> str:
    return f"--remove {','.join(map(str, step.plan.units))}"


def _options(step: RepairStep, manifest: Manifest, base: str) -> str:
    ours = {manifest.base.name} | {cut.plan.model.name for cut in manifest.steps[:1] if isinstance(cut, CutStep)}
    against = base if step.against.name in ours else public(step.against.name)
    text = f"{'--ids' if step.data.bos == 'as given' else '--text'} {shell_word(public(step.data.source))}"
    fitted = max(step.data.sequences - step.validation, 0)
    seed = f" --seed {step.data.seed}" if step.data.seed else ""
    more = "".join(f" {_option(name, value)}" for name, value in step.options.items())
    return (
        f"--against {shell_word(against)} --method {shell_word(step.method)} {text} --calibration {fitted} "
        f"--validation {step.validation}{seed}{more}"
    )


def _option(name: str, value: str) -> str:
    word = shell_word("--" + name.replace("_", "-"))
    return word if value == "True" else f"{word} {shell_word(value)}"
