"""Of finished checkpoints that were quantised, written in another format, or uploaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shortlm.artifacts import Manifest, QuantizeStep
from shortlm.console.printing import tell
from shortlm.sizes import gib

if TYPE_CHECKING:  # which import torch
    from shortlm.export import GgufExport, Push


def show_quantized(manifest: Manifest, folder: object) -> None:
    """How many bits are left, and what that costs on held-out text."""
    step = manifest.steps[-1]
    if not isinstance(step, QuantizeStep):
        return
    group = f"groups of {step.group_size}" if step.group_size else "a scale for each output"
    tell(f"{folder}: {step.method}, {step.bits} bits, {group}; {step.layers} linear layers, by {step.tool}")
    tell(f"weights {gib(step.bytes_before)} -> {gib(step.bytes_after)}")
    if step.loss:
        error = "" if step.loss.stderr is None else f" ± {step.loss.stderr:.4f}"
        change = step.loss.after - step.loss.before
        tell(f"held-out loss, nats per token: {step.loss.before:.4f} -> {step.loss.after:.4f} ({change:+.4f}{error})")


def show_gguf(written: GgufExport) -> None:
    """What was written, and how far llama.cpp agrees."""
    tell(f"{written.path}: {written.outtype}, {gib(written.bytes)}")
    if found := written.agreement:
        parted = "" if found.largest_gap is None else f"; where both part, logits are {found.largest_gap:.2g} apart"
        tell(f"{found.llama_cpp} writes {found.same} of {found.tokens} tokens as transformers does{parted}")


def show_push(push: Push) -> None:
    """Which files went where, or would go."""
    for name, size in push.files.items():
        tell(f"{gib(size):>10}  {name}")
    seen = "private" if push.private else "public"
    where = f"went to {push.url}" if push.url else f"would go to {push.repository}"
    tell(f"{len(push.files)} files, {gib(push.bytes)}, {where} ({seen} if it is new)")
