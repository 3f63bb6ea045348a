"""Of checkpoints that were cut, narrowed or repaired: what is left, how near it is to the original."""

from __future__ import annotations

from shortlm.artifacts import Equivalence, Manifest, WidthStep
from shortlm.console.printing import tell

FORMS = {
    "plain": "a plain checkpoint",
    "shortlm": "of our own type 'shortlm': loads in transformers after `import shortlm`",
    "nemotron-nas": "as nemotron-nas: loads in vLLM (--trust-remote-code) and others that know DeciLM, not in shortlm",
    "zeroed": "zeroed: loads everywhere, and is as large and as slow as with them",
}


FORMS_OF_WIDTHS = {
    "plain": "a plain config, which loads without shortlm",
    "shortlm": "loads in transformers after `import shortlm`",
}


def show_manifest(manifest: Manifest, folder: object) -> None:
    """Where the result is, and how near it is to the original."""
    tell(f"{folder}: blocks {', '.join(map(str, manifest.blocks))} of the original")
    if manifest.last_cut and (left_out := manifest.left_out):
        tell(f"without {', '.join(map(str, left_out))} of these; {FORMS[manifest.last_cut.form]}")
    tell(f"weights {manifest.bytes_before:,} -> {manifest.bytes_after:,} bytes")
    if plan := manifest.plan:
        tell(f"parameters {plan.model.parameters:,} -> {plan.parameters_after:,}")
    if manifest.equivalence:
        _show_equivalence(manifest.equivalence)


def _show_equivalence(check: Equivalence) -> None:
    line = f"equivalence check ({check.dtype}): logits differ by at most {check.max_abs_difference:.2g} "
    line += f"(allowed {check.tolerance:.2g})"
    if check.max_abs_difference_cached is not None:
        allowed = check.tolerance_cached or check.tolerance
        line += f", with KV cache {check.max_abs_difference_cached:.2g} (allowed {allowed:.2g})"
    tell(line)


def show_width(manifest: Manifest, folder: object) -> None:
    """What stays of every block, and how near the result is to the original with the rest masked."""
    step = manifest.steps[-1]
    if not isinstance(step, WidthStep):
        return
    heads, channels = [len(w.heads) for w in step.widths], [w.channels for w in step.widths]
    of_heads, of_channels = max(w.heads_before for w in step.widths), max(w.channels_before for w in step.widths)
    tell(
        f"{folder}: {step.method}; {_from_to(heads)} of {of_heads} KV heads and {_from_to(channels)} of "
        f"{of_channels:,} channels stay in a block; {FORMS_OF_WIDTHS[step.form]}"
    )
    tell(f"weights {step.bytes_before:,} -> {step.bytes_after:,} bytes")
    tell(f"parameters {step.found.parameters:,} -> {step.parameters_after:,}")
    if step.equivalence:
        _show_equivalence(step.equivalence)


def _from_to(counts: list[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def show_repair(manifest: Manifest, folder: object) -> None:
    """What the repair gained on windows that no weight was fitted on."""
    step = manifest.repair
    if step is None:
        return
    loss, changed = step.loss, [fold for fold in step.folds if fold.ridge is not None or fold.factor is not None]
    tell(f"{folder}: {step.method}, {len(changed)} of {len(step.folds)} folds changed the model")
    won = f" ({(loss.cut - loss.repaired) / (loss.cut - loss.dense):.0%} won back)" if loss.cut > loss.dense else ""
    error = f" ± {loss.stderr:.4f}" if loss.stderr is not None else ""
    tell(
        f"validation, nats per token: dense {loss.dense:.4f}, cut {loss.cut:.4f}, repaired {loss.repaired:.4f}{won}; "
        f"change {loss.repaired - loss.cut:+.4f}{error}"
    )
