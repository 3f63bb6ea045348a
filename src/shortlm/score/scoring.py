"""The verb: one forward sweep and, if a criterion needs gradients, one backward sweep feed all criteria."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from shortlm.artifacts import BlockScores, CriterionScores, provenance
from shortlm.errors import ScoreError
from shortlm.model import ModelFiles, OpenModel
from shortlm.recipe import ModelSettings, ScoreSettings, TextSettings
from shortlm.score.criterion import Criterion, Setting, Weighting
from shortlm.score.registry import parse
from shortlm.score.stability import with_stability
from shortlm.score.weights import Taylor
from shortlm.sweep import (
    Batch,
    BlockCaller,
    BlockGradients,
    KeptStates,
    Losses,
    Ranks,
    Schedule,
    Work,
    backward_sweep,
    batched,
    gathered,
    open_job,
    perplexity_of,
    refuse_no_number,
    share_of,
    single_removals,
    sweep,
)  # fmt: skip
from shortlm.text import Windows


def score(
    model: ModelSettings, text: TextSettings, settings: ScoreSettings, say: Callable[[str], object] | None = None
) -> BlockScores:
    """Open the model and the text, then score every block. Raises ShortLMError for bad input.

    Under torchrun every process scores its share of the sequences, and all return the same. `say` is told the
    schedule, if one had to be made (for blocks on disk, or within a memory budget).
    """
    if settings.select:
        raise ScoreError(f"--select {settings.select}: a race chooses; in Python it is shortlm.race_scores")
    needs = frozenset[str]().union(*(parse(spec)[0].needs for spec in settings.criteria))

    def work(files: ModelFiles, shape: tuple[int, int]) -> Work:
        return work_of(settings.criteria, shape, settings.check)

    with open_job(model, text if needs - {"weights"} else None, work, settings.batch_size, say) as job:
        return score_model(job.opened, job.windows, settings, text.seed, job.schedule, job.ranks)


def score_model(
    opened: OpenModel,
    windows: Windows | None,
    settings: ScoreSettings,
    seed: int = 0,
    schedule: Schedule | None = None,
    ranks: Ranks | None = None,
) -> BlockScores:
    """Score the blocks of an open model on `windows` (None if no criterion needs data).

    Every criterion asked for is fed by the same sweep. Raises ScoreError if a score is NaN or infinite.
    """
    started, ranks = time.perf_counter(), ranks or Ranks()
    caller = BlockCaller(opened.model, opened.anatomy, opened.disk)
    results, base = _swept(opened, caller, windows, settings, seed, schedule, ranks)
    return BlockScores(
        model=opened.facts, data=windows.facts if windows else None, criteria=results, base_perplexity=base,
        block_forwards=int(ranks.total(caller.forwards)), processes=ranks.size,
        provenance=provenance(str(opened.device), opened.dtype, round(time.perf_counter() - started, 3)),
    )  # fmt: skip


def _swept(
    opened: OpenModel,
    caller: BlockCaller,
    windows: Windows | None,
    settings: ScoreSettings,
    seed: int,
    schedule: Schedule | None,
    ranks: Ranks,
) -> tuple[dict[str, CriterionScores], float | None]:
    """The scores by each criterion, and the whole model's perplexity."""
    count = 0 if windows is None else len(windows.ids_BT)
    setting = Setting(opened.facts.n_blocks, opened.anatomy, seed, count, ranks)
    criteria = {spec: kind(setting, options) for spec, (kind, options) in _parsed(settings.criteria).items()}
    base = None
    if windows is not None:
        batches, per_pass = batched(caller, windows.part(share_of(windows, ranks)), settings.batch_size, schedule)
        needing = [c for c in criteria.values() if "gradients" in c.needs]
        kept = KeptStates() if needing and (not opened.disk or per_pass >= len(batches)) else None
        check, most = seed if settings.check else None, schedule.most if schedule else None
        losses = gathered(_forward(caller, batches, criteria, per_pass, kept, check, most), count, ranks)
        base = perplexity_of(losses)
        for criterion in (c for c in criteria.values() if "removals" in c.needs):
            criterion.removals(losses)
        _backward(caller, batches, needing, losses, kept, ranks)
    elif weighing := [c for c in criteria.values() if "weights" in c.needs]:
        for i in caller.visit():
            for criterion in weighing:
                criterion.weigh(i, caller.blocks[i])
    return {spec: _checked(spec, c, settings, seed) for spec, c in criteria.items()}, base


def work_of(specs: list[str], shape: tuple[int, int], check: bool = True) -> Work:
    """What these criteria ask of the sweep, for so many sequences of so many tokens (0, 0 without data)."""
    parsed = [parse(spec) for spec in specs]
    needs = frozenset[str]().union(*(kind.needs for kind, _ in parsed))
    turns = {options.get("batches", 1) for kind, options in parsed if "gradients" in kind.needs}
    return Work(
        *shape, removals="removals" in needs, states="states" in needs, gradients="gradients" in needs,
        weight_gradients="weight gradients" in needs, turns=max(1, len(turns)),
        check=check and shape[0] > 0,
    )  # fmt: skip


def _parsed(specs: list[str]) -> dict[str, tuple[type[Criterion], dict]]:
    return {spec: parse(spec) for spec in specs}


def _forward(
    caller: BlockCaller,
    batches: list,
    criteria: dict[str, Criterion],
    per_pass: int,
    kept: KeptStates | None,
    check: int | None,
    most: int | None,
) -> Losses:
    weighing, watching, removing = (
        [c for c in criteria.values() if need in c.needs] for need in ("weights", "states", "removals")
    )

    def visit(i: int) -> None:
        for criterion in weighing:
            criterion.weigh(i, caller.blocks[i])

    observers = [c.observe for c in watching] + ([kept] if kept else [])

    def observe(i: int, in_BTD: torch.Tensor, out_BTD: torch.Tensor, batch: Batch) -> None:
        for observer in observers:
            observer(i, in_BTD, out_BTD, batch)

    masks = single_removals(len(caller.blocks)) if removing else []
    return sweep(caller, batches, masks, observe if observers else None, visit, per_pass, check=check, most=most)


def _backward(
    caller: BlockCaller,
    batches: list,
    needing: list[Criterion],
    losses: Losses,
    kept: KeptStates | None,
    ranks: Ranks,
) -> None:
    """One backward sweep per way of parting the sequences into batches (nearly always one)."""
    for parts in sorted({c.options.get("batches", 1) for c in needing}):
        members = [c for c in needing if c.options.get("batches", 1) == parts]
        mine = ranks.share(len(losses.tokens_S))
        weighting = Weighting(_weights(losses.tokens_S, parts), losses.tokens_S, mine)
        of_weights = any("weight gradients" in c.needs for c in members)

        def on_block(
            block: BlockGradients,
            members: list[Criterion] = members,
            weighting: Weighting = weighting,
            of_weights: bool = of_weights,
        ) -> None:
            if of_weights:
                block.all_reduce(ranks)
            for criterion in members:
                criterion.gradients(block, weighting)

        states = kept.taken() if kept else None
        backward_sweep(caller, batches, weighting.weights_S[mine], on_block, of_weights, states)


def _weights(tokens_S: torch.Tensor, parts: int) -> torch.Tensor:
    """1 / (tokens of its part) for each sequence: the loss is the sum of the parts' mean cross-entropies."""
    if parts > len(tokens_S):
        raise ScoreError(f"criterion '{Taylor.name}': {parts} batches of {len(tokens_S)} sequences; use fewer batches")
    return torch.cat([torch.full((len(p),), 1 / float(p.sum())) for p in tokens_S.chunk(parts)])


def _checked(spec: str, criterion: Criterion, settings: ScoreSettings, seed: int) -> CriterionScores:
    result = criterion.result().model_copy(update={"options": criterion.options})
    refuse_no_number(spec, result.scores)
    return with_stability(result, settings.resamples, seed)
