"""The steps of a manifest in words, and the commands that repeat them."""

from __future__ import annotations

from dataclasses import dataclass

from shortlm.artifacts import AnyStep, CutStep, DataFacts, Manifest, QuantizeStep, RepairStep, WidthStep
from shortlm.report.markdown import public, shell_word
from shortlm.report.repair import changed, nats, no_copies
from shortlm.report.units import units_text
from shortlm.units import Unit

NAMES = {"cut": "shorter", "repair": "repaired", "width": "narrower", "quantize": "quantised"}


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
        found.append(StepRow(number, step, _what(step, indices)))
        indices = step.blocks_after(indices)
    return found


def _what(step: AnyStep, indices: list[int]) -> str:
    if isinstance(step, CutStep):
        return _cut(step, indices)
    if isinstance(step, QuantizeStep):
        return _quantized(step)
    return _repaired(step) if isinstance(step, RepairStep) else _narrowed(step)


def commands(manifest: Manifest, base: str) -> list[str]:
    """Command lines that make this checkpoint of `base` again; a repair that changed nothing needs none."""
    steps = [step for step in manifest.steps if not isinstance(step, RepairStep) or changed(step)]
    found, model = [], base
    names = [NAMES[step.kind] for step in steps]
    for number, (name, step) in enumerate(zip(names, steps, strict=True), start=1):
        out = name if len(set(names)) == len(names) < 3 else f"{name}-{number}"
        if isinstance(step, CutStep):
            last = step is manifest.last_cut
            found.append(
                f"shortlm cut --model {shell_word(model)} {'--plan manifest.json' if last else _removal(step)}"
            )
        elif isinstance(step, RepairStep):
            found.append(f"shortlm repair {shell_word(model)} {_options(step, manifest, base)}")
        elif isinstance(step, QuantizeStep):
            found.append(f"shortlm quantize {shell_word(model)} {_quantize_options(step)}")
        else:
            found.append(f"shortlm prune-width {shell_word(model)} {_width_options(step)}")
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


def _narrowed(step: WidthStep) -> str:
    heads, of_heads = _least_and_most([(len(w.heads), w.heads_before) for w in step.widths])
    channels, of_channels = _least_and_most([(w.channels, w.channels_before) for w in step.widths])
    bias = ", their means left as biases" if step.bias else ""
    share = 1 - step.parameters_after / step.found.parameters
    return (
        f"Narrowed by {step.method}: {heads} of {of_heads} KV heads and {channels} of {of_channels} channels stay in a "
        f"block{bias} ({100 * share:.1f} % of the parameters go)"
    )


def _quantized(step: QuantizeStep) -> str:
    group = f"groups of {step.group_size}" if step.group_size else "a scale for each output"
    loss = ""
    if step.loss:
        loss = f"; {step.loss.before:.4f} → {step.loss.after:.4f} nats per token on held-out text"
    return f"Quantised by {step.method} to {step.bits} bits, {group}, {step.layers} linear layers, by {step.tool}{loss}"


def _quantize_options(step: QuantizeStep) -> str:
    order = "" if step.act_order or step.method == "rtn" else " --no-act-order"
    return f"--method {step.method} --bits {step.bits} --group-size {step.group_size}{order}{_text_options(step.data)}"


def _least_and_most(pairs: list[tuple[int, int]]) -> tuple[str, str]:
    """What stays, and of how many: 5 to 7, or 6."""
    pairs = [(left, before) for left, before in pairs if before] or [(0, 0)]
    low, high = min(left for left, _ in pairs), max(left for left, _ in pairs)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}", f"{max(before for _, before in pairs):,}"


def _width_options(step: WidthStep) -> str:
    options = "".join(f" {_option(name, value)}" for name, value in step.options.items())
    return f"--method {shell_word(step.method)} --shape {step.shape}{_text_options(step.data)}{options}"


def _text_options(data: DataFacts | None) -> str:
    if data is None:
        return ""
    name = "--ids" if data.bos == "as given" else "--text"
    return f" {name} {shell_word(public(data.source))} --sequences {data.sequences}"


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
    if value and not value.strip():  # a separator; as the shell reads what can't be seen
        return f"{word} $'{value.encode('unicode_escape').decode('ascii')}'"
    return word if value == "True" else f"{word} {shell_word(value)}"
