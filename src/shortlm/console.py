"""What commands print: small tables on standard output."""

from __future__ import annotations

import math
import sys
from itertools import groupby

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from shortlm.artifacts import (
    Benchmark,
    BlockScores,
    CriterionScores,
    CutPlan,
    Equivalence,
    HealEstimate,
    Healing,
    Manifest,
    Measurement,
    Search,
    WidthStep,
    WorkEstimate,
)
from shortlm.recipe import Described
from shortlm.sizes import duration, gib, significant

WIDE = None if sys.stdout is not None and sys.stdout.isatty() else 140  # a file or a pipe has no width of its own
out = Console(highlight=False, soft_wrap=True, markup=False, width=WIDE)  # names and texts are taken literally


def show_recipes(recipes: list[Described]) -> None:
    """What comes with the package, folder by folder: name, model, method, and the command where it isn't run."""
    for folder, group in groupby(recipes, key=lambda recipe: recipe.name.rpartition("/")[0]):
        rows = list(group)
        papers = sorted({row.source for row in rows if row.source})
        out.print(f"\n{folder}/  {', '.join(papers)}".rstrip() if folder else "demos")
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1))
        for row in rows:
            command = "" if row.command == "run" else row.command
            table.add_row(f"  {row.name.rpartition('/')[2]}", row.model, ", ".join(filter(None, (command, row.method))))
        out.print(table)
    out.print("\nshortlm run NAME, or the command that is named; FOLDER/NAME where two are alike")


def show_scores(scores: BlockScores) -> None:
    """One row per block or unit, one column per criterion; the rank (0 = removed first) behind each score.

    Of a race, whose scores are from more sequences or fewer, how many they are instead.
    """
    what = "unit" if scores.units else "block"
    table = Table(box=SIMPLE, pad_edge=False)
    table.add_column(what, no_wrap=True)
    for name in scores.criteria:
        table.add_column(name, justify="right", no_wrap=True)
    columns = [_score_cells(criterion) for criterion in scores.criteria.values()]
    for unit, *cells in zip(scores.rows, *columns, strict=True):
        table.add_row(str(unit), *cells)
    raced = any(c.race and c.race.early for c in scores.criteria.values())
    ranked = f"score and rank of each {what}; rank 0 is the least important and goes first"
    out.print(f"{scores.model.name}: {'score of each block, and on how many sequences' if raced else ranked}")
    out.print(table)
    if raced:
        out.print("* left the race early: scores on other sequences can't be compared, so there are no ranks")
    agreement = [f"{n} {c.rank_agreement:.2f}" for n, c in scores.criteria.items() if c.rank_agreement is not None]
    if agreement:
        out.print("rank agreement over resampled sequences (Kendall tau): " + ", ".join(agreement))
    for race in (c.race for c in scores.criteria.values() if c.race):
        out.print(f"least important of those that may go: {', '.join(map(str, race.selected))}")
        share = scores.block_forwards / max(race.block_forwards_full, 1)
        work = f"{scores.block_forwards:,} block forwards, {share:.0%}"
        out.print(f"found with {work} of the full sweep's")
    if scores.base_perplexity is not None:
        out.print(f"perplexity of the whole model on the same windows: {scores.base_perplexity:.4f}")


def _score_cells(criterion: CriterionScores) -> list[str]:
    """A score and its rank; if blocks left a race early, the number of sequences instead, and a mark."""
    race = criterion.race
    if race and race.early:
        behind = [f"{'*' if i in race.early else ' '} {count:3d}" for i, count in enumerate(race.sequences)]
    else:
        ranks = {block: rank for rank, block in enumerate(criterion.order())}
        behind = [f" {ranks[i]:2d}" for i in range(len(ranks))]
    return [f"{score:.4g} {more}" for score, more in zip(criterion.scores, behind, strict=True)]


def show_plan(plan: CutPlan) -> None:
    """Which blocks go and what that leaves."""
    before, after = plan.model.parameters, plan.parameters_after
    blocks = ", ".join(map(str, plan.removed)) or "none"
    out.print(f"remove {len(plan.removed)} of {plan.model.n_blocks} blocks: {blocks}")
    if plan.removed_sublayers:
        out.print(f"of others: {', '.join(map(str, plan.removed_sublayers))}")
    out.print(f"by {plan.criterion} ({plan.method}), budget {plan.budget}, protected: {plan.protected or 'none'}")
    out.print(f"parameters {before:,} -> {after:,} (-{1 - after / max(before, 1):.1%})")
    if plan.agreement is not None:
        out.print(f"the same blocks are chosen in {plan.agreement:.0%} of resamples of the sequences")
    if plan.search:
        _show_search(plan.search)


def _show_search(found: Search) -> None:
    """What it took, how the chosen set does on other text, how sure the choice is."""
    spared = f", {found.spared:,} spared" if found.spared else ""
    out.print(f"asked the model about {found.sets:,} sets{spared}: {found.block_forwards:,} block forwards")
    for trail in found.trails if len(found.trails) > 1 else found.trails[-1:]:
        last = trail.found[-1] if trail.found else None
        if last and last.held_out_nats is not None:
            error = "" if last.held_out_stderr is None else f" ± {last.held_out_stderr:.4f}"
            held = f", held out {last.held_out_nats:.4f}{error}"
        else:
            held = ""
        if last:
            out.print(f"  {trail.name}: {last.nats:.4f} nats per token{held}, {trail.block_forwards:,} block forwards")
    if found.held_out_base_nats is not None:
        out.print(f"  the whole model: {found.base_nats:.4f}, held out {found.held_out_base_nats:.4f}")
    if sure := found.certainty:
        out.print(
            f"of {sure.sets:,} sets it is the best in {sure.same:.0%} of {sure.resamples:,} resamples of the "
            f"sequences, {sure.regret:.2g} nats above the best on average"
        )
    if found.estimate:
        tau = found.estimate.rank_correlation
        count = len(found.estimate.units)
        out.print(f"first-order estimate: rank correlation {tau:.2f} with the true losses of {count} units")
    for note in found.notes:
        out.print(note)


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
    out.print(f"{folder}: blocks {', '.join(map(str, manifest.blocks))} of the original")
    if manifest.last_cut and (left_out := manifest.left_out):
        out.print(f"without {', '.join(map(str, left_out))} of these; {FORMS[manifest.last_cut.form]}")
    out.print(f"weights {manifest.bytes_before:,} -> {manifest.bytes_after:,} bytes")
    if plan := manifest.plan:
        out.print(f"parameters {plan.model.parameters:,} -> {plan.parameters_after:,}")
    if manifest.equivalence:
        _show_equivalence(manifest.equivalence)


def _show_equivalence(check: Equivalence) -> None:
    line = f"equivalence check ({check.dtype}): logits differ by at most {check.max_abs_difference:.2g} "
    line += f"(allowed {check.tolerance:.2g})"
    if check.max_abs_difference_cached is not None:
        allowed = check.tolerance_cached or check.tolerance
        line += f", with KV cache {check.max_abs_difference_cached:.2g} (allowed {allowed:.2g})"
    out.print(line)


def show_width(manifest: Manifest, folder: object) -> None:
    """What stays of every block, and how near the result is to the original with the rest masked."""
    step = manifest.steps[-1]
    if not isinstance(step, WidthStep):
        return
    heads, channels = [len(w.heads) for w in step.widths], [w.channels for w in step.widths]
    of_heads, of_channels = max(w.heads_before for w in step.widths), max(w.channels_before for w in step.widths)
    out.print(
        f"{folder}: {step.method}; {_from_to(heads)} of {of_heads} KV heads and {_from_to(channels)} of "
        f"{of_channels:,} channels stay in a block; {FORMS_OF_WIDTHS[step.form]}"
    )
    out.print(f"weights {step.bytes_before:,} -> {step.bytes_after:,} bytes")
    out.print(f"parameters {step.found.parameters:,} -> {step.parameters_after:,}")
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
    out.print(f"{folder}: {step.method}, {len(changed)} of {len(step.folds)} folds changed the model")
    won = f" ({(loss.cut - loss.repaired) / (loss.cut - loss.dense):.0%} won back)" if loss.cut > loss.dense else ""
    error = f" +- {loss.stderr:.4f}" if loss.stderr is not None else ""
    out.print(
        f"validation, nats per token: dense {loss.dense:.4f}, cut {loss.cut:.4f}, repaired {loss.repaired:.4f}{won}; "
        f"change {loss.repaired - loss.cut:+.4f}{error}"
    )


def show_healing(healing: Healing, folder: object) -> None:
    """Every phase in a line or two: how far the loss fell, what was trained, how fast."""
    for number, phase in enumerate(healing.phases, start=1):
        tokens = f"{phase.log[-1].tokens:,} tokens" if phase.log else "no tokens"
        done = f"{phase.steps} steps, {tokens}, {phase.targets_per_second:,.0f} targets/s"
        shared = f", {phase.processes} processes" if phase.processes > 1 else ""
        out.print(f"phase {number}: {phase.method} of {phase.trainable:,} parameters, {done}{shared}")
        kept = next((v for v in phase.validations if v.step == phase.kept_step), None)
        for name, nats in (kept.nats_per_token if kept else {}).items():
            before = phase.validations[0].nats_per_token[name]
            first, last = _perplexity(before), _perplexity(nats)
            out.print(f"  {name}: {before:.4f} -> {nats:.4f} nats, perplexity {first} -> {last}")
        if phase.merge_difference is not None:
            out.print(f"  merged; logits differ from the adapter model's by at most {phase.merge_difference:.2g}")
    out.print(str(folder))


def _perplexity(nats: float) -> str:
    return f"{math.exp(nats):.3f}" if nats < 30 else f"e^{nats:.4g}"


def show_heal_estimate(estimate: HealEstimate) -> None:
    """Every phase: the arithmetic of steps and tokens, the memory of a process, the time."""
    model = estimate.model
    out.print(f"{model.name}: {model.parameters:,} parameters, {estimate.provenance.device}")
    for number, p in enumerate(estimate.phases, start=1):
        share = p.micro_batches // p.processes
        out.print(f"phase {number}: {p.method}, trains {p.trainable:,} parameters")
        step = f"{p.rows_per_step:,} rows, {p.tokens_per_step:,} tokens"
        out.print(f"  step      {step}: {_counted(p.processes, 'process')} x {_counted(share, 'micro-batch')}")
        out.print(f"  steps     {p.steps:,}, {p.tokens:,} tokens in all")
        listed = ", ".join(f"{name} {gib(size)}" for name, size in p.parts.items())
        out.print(f"  memory    {gib(p.peak_bytes)} in each process: {listed}")
        rate = f" ({p.tokens / p.seconds:,.0f} tokens/s; {p.rate})" if p.seconds else f" ({p.rate})"
        out.print(f"  time      {duration(p.seconds) if p.seconds else '-'}{rate}, {p.flops:.3g} FLOP")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'es' if count != 1 else ''}"


def show_measurement(measurement: Measurement) -> None:
    """Perplexities with standard errors, and the sample."""
    for p in measurement.perplexities:
        error = f" ± {p.perplexity * p.stderr_nats:.4f}" if p.stderr_nats is not None else ""
        tokens = sum(p.tokens_per_sequence)
        out.print(
            f"{p.text}: perplexity {p.perplexity:.4f}{error} ({tokens:,} tokens, BOS: {p.data.bos})"
            + ("; healed on this text" * p.healed_on)
        )
    if measurement.tasks:
        _show_tasks(measurement)
    if measurement.fluency:
        share, shown = f"{measurement.fluency.repeated:.1%}", measurement.text_fluency
        beside = f" ({shown.repeated:.1%} in the text itself)" if shown else ""
        out.print(f"samples ({measurement.sampling}): {share} of 4-grams repeated{beside}")
    for number, sample in enumerate(measurement.samples, start=1):
        if len(measurement.samples) > 1:
            out.print(f"--- sample {number}")
        out.print(Text(sample.prompt, style="dim") + Text(sample.text))


def _show_tasks(measurement: Measurement) -> None:
    table = Table("task", "metric", box=SIMPLE, pad_edge=False)
    for title in ("value", "stderr", "shots", "questions"):
        table.add_column(title, justify="right", no_wrap=True)
    for t in measurement.tasks:
        error = "-" if t.stderr is None else f"{t.stderr:.4f}"
        table.add_row(t.task, t.metric, f"{t.value:.4f}", error, str(t.shots), f"{t.questions:,}")
    for m in measurement.task_means:
        error = "-" if m.stderr is None else f"{m.stderr:.4f}"
        table.add_row(m.name, f"mean of {len(m.tasks)}", f"{m.value:.4f}", error, "", "")
    out.print(table)


def show_benchmark(benchmark: Benchmark) -> None:
    """One row per case and model, then where a step's time goes, what fits, and what was too noisy to tell."""
    from shortlm.report.speed import bench_notes, limit_pairs, noise_warnings, shares, speed_rows

    kind = f"{benchmark.backend}, {benchmark.provenance.dtype}; {benchmark.sampling}"
    out.print(f"{benchmark.device}: {kind}")
    wide = out.width >= 100
    titles = ("batch", "tokens", "model", "latency", "first", "each", "tokens/s", "speed-up", *["peak"] * wide)
    table = Table(box=SIMPLE, pad_edge=False)
    for title in titles:
        table.add_column(title, justify="left" if title == "model" else "right", no_wrap=True)
    for r in speed_rows(benchmark):
        first, later = (duration(t) if t is not None else "-" for t in (r.first_token, r.per_token))
        interval = f" ({r.ratio.low:.2f} to {r.ratio.high:.2f})" if r.ratio and wide else ""
        ratio = f"{r.ratio.value:.2f}{interval}" if r.ratio else "-"
        peak = [gib(r.peak_bytes) if r.peak_bytes else "-"] * wide
        lengths, speed = f"{r.case.prompt_tokens}+{r.case.output_tokens}", significant(r.tokens_per_second)
        table.add_row(str(r.case.batch), lengths, r.role, duration(r.latency), first, later, speed, ratio, *peak)
    out.print(table)
    for cell in benchmark.cells:
        if cell.failed:
            out.print(f"{cell.role}: batch {cell.batch}, {cell.prompt_tokens} + {cell.output_tokens}: {cell.failed}")
    for s in shares(benchmark):
        b = s.breakdown
        parts = f"blocks {duration(b.blocks)}, lm_head {duration(b.head)}, rest {duration(b.rest)}"
        best = f"; {s.speedup:.2f} times as fast, {s.ideal:.2f} expected" if s.ideal and s.speedup else ""
        out.print(f"a step of {b.role}: {parts}{best}")
    for limit, _ in limit_pairs(benchmark):
        case = (
            f"{limit.prompt_tokens}+{limit.output_tokens} tokens" if limit.kind == "batch" else f"batch {limit.batch}"
        )
        most = f"{limit.role}, {case}: largest {limit.kind} {limit.value:,} in {gib(limit.budget_bytes)}"
        weights = next(m.weight_bytes for m in benchmark.models if m.role == limit.role)
        none = f"; the weights alone take {gib(weights)}" if not limit.value else ""
        out.print(f"{most} (stopped by {limit.stopped_by}{none})")
    for note in bench_notes(benchmark):
        out.print(f"note: {note}")
    for warning in noise_warnings(benchmark):
        out.print(f"noisy: {warning}")


def show_work(estimate: WorkEstimate, what: str = "criterion") -> None:
    """One row per criterion, or whatever is planned: memory, reading, computing, time."""
    where = f"{estimate.provenance.device}, {estimate.provenance.dtype}"
    out.print(f"{estimate.model.name}: {estimate.sequences} sequences of {estimate.tokens} tokens, {where}, weights "
              f"{gib(estimate.weights_bytes)}")  # fmt: skip
    table = Table(box=SIMPLE, pad_edge=False)
    for title in (what, "blocks"):
        table.add_column(title, no_wrap=True)
    for title in ("peak", "read", "forwards", "TFLOP", "time"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in estimate.rows:
        passes = f", {row.passes} passes" if row.passes > 1 else ""
        blocks = f"disk{passes}" if row.streamed else "memory"
        peak = gib(row.peak_bytes) if row.exact else f"< {gib(row.peak_bytes)}"
        time = "-" if row.seconds is None else duration(row.seconds)
        table.add_row(
            row.name, blocks, peak, gib(row.bytes_read), f"{row.block_forwards:,}", f"{row.flops / 1e12:.2f}", time
        )
    out.print(table)
    if all(row.seconds is None for row in estimate.rows):
        out.print("the device is not here: no time could be measured")
    elif estimate.disk_bytes_per_second is None:
        out.print("the time counts computing, not reading")
