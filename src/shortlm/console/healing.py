"""Of healing: what every phase took and gained, or would take."""

from __future__ import annotations

import math

from shortlm.artifacts import HealEstimate, Healing
from shortlm.console.printing import tell
from shortlm.sizes import duration, gib


def show_healing(healing: Healing, folder: object) -> None:
    """Every phase in a line or two: how far the loss fell, what was trained, how fast."""
    for number, phase in enumerate(healing.phases, start=1):
        tokens = f"{phase.log[-1].tokens:,} tokens" if phase.log else "no tokens"
        done = f"{phase.steps} steps, {tokens}, {phase.targets_per_second:,.0f} targets/s"
        shared = f", {phase.processes} processes" if phase.processes > 1 else ""
        tell(f"phase {number}: {phase.method} of {phase.trainable:,} parameters, {done}{shared}, {phase.precision}")
        kept = next((v for v in phase.validations if v.step == phase.kept_step), None)
        for name, nats in (kept.nats_per_token if kept else {}).items():
            before = phase.validations[0].nats_per_token[name]
            first, last = _perplexity(before), _perplexity(nats)
            tell(f"  {name}: {before:.4f} -> {nats:.4f} nats, perplexity {first} -> {last}")
        if phase.merge_difference is not None:
            tell(f"  merged; logits differ from the adapter model's by at most {phase.merge_difference:.2g}")
    tell(str(folder))


def _perplexity(nats: float) -> str:
    return f"{math.exp(nats):.3f}" if nats < 30 else f"e^{nats:.4g}"


def show_heal_estimate(estimate: HealEstimate) -> None:
    """Every phase: the arithmetic of steps and tokens, the memory of a process, the time."""
    model = estimate.model
    tell(f"{model.name}: {model.parameters:,} parameters, {estimate.provenance.device}")
    for number, p in enumerate(estimate.phases, start=1):
        share = p.micro_batches // p.processes
        tell(f"phase {number}: {p.method}, trains {p.trainable:,} parameters")
        step = f"{p.rows_per_step:,} rows, {p.tokens_per_step:,} tokens"
        tell(f"  step      {step}: {_counted(p.processes, 'process')} x {_counted(share, 'micro-batch')}")
        tell(f"  steps     {p.steps:,}, {p.tokens:,} tokens in all")
        listed = ", ".join(f"{name} {gib(size)}" for name, size in p.parts.items())
        tell(f"  memory    {gib(p.peak_bytes)} in each process: {listed}")
        rate = f" ({p.tokens / p.seconds:,.0f} tokens/s; {p.rate})" if p.seconds else f" ({p.rate})"
        tell(f"  time      {duration(p.seconds) if p.seconds else '-'}{rate}, {p.flops:.3g} FLOP")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'es' if count != 1 else ''}"
