"""The verb: one forward sweep and, if a criterion needs gradients, one backward sweep feed all criteria."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from shortlm.artifacts import BlockScores, CriterionScores, provenance
from shortlm.errors import ScoreError
from shortlm.model import ModelFiles, OpenModel, find_anatomy, meta_model, open_config
from shortlm.recipe import ModelSettings, Plain, ScoreSettings, TextSettings, settings_of
from shortlm.score.criterion import Criterion, Setting, Weighting
from shortlm.score.feed import Feed
from shortlm.score.registry import parse
from shortlm.score.stability import with_stability
from shortlm.score.weights import Taylor
from shortlm.sweep import (
    PARTIAL_CALLS,
    BlockCaller,
    BlockGradients,
    Branches,
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
    sweep,
)  # fmt: skip
from shortlm.text import Windows
from shortlm.units import BLOCK, Unit, units_of


def score(
    model: ModelSettings | Plain, text: TextSettings | Plain | None = None,
    settings: ScoreSettings | Mapping[str, object] | None = None, say: Callable[[str], object] | None = None,
) -> BlockScores:  # fmt: skip
    """Open the model and the text, then score every unit asked for. Raises ShortLMError for bad input.

    Under torchrun every process scores its share of the sequences, and all return the same. `say` is told the
    schedule, if one had to be made (for blocks on disk, or within a memory budget).
    """
    model, text = settings_of(ModelSettings, model), settings_of(TextSettings, text)
    settings = settings_of(ScoreSettings, settings)
    if settings.select:
        raise ScoreError(f"--select {settings.select}: a race chooses; in Python it is shortlm.race_scores")
    needs = frozenset[str]().union(*(parse(spec)[0].needs for spec in settings.criteria))
    if settings.parts() != [BLOCK]:  # which all models have
        refuse_lacking(open_config(model), settings.parts(), model.trust_remote_code)

    def work(files: ModelFiles, shape: tuple[int, int]) -> Work:
        return work_of(settings.criteria, shape, settings.check, settings.parts())

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
    """Score the units of an open model on `windows` (None if no criterion needs data).

    Every criterion asked for is fed by the same sweep. Raises ModelError for a sublayer that a block doesn't have,
    ScoreError if a score is NaN or infinite.
    """
    started, ranks = time.perf_counter(), ranks or Ranks()
    caller = BlockCaller(opened.model, opened.anatomy, opened.disk)
    units = units_of(settings.parts(), opened.facts.n_blocks)
    _refuse_unknown(caller.branches, units)
    setting = Setting(units, opened.anatomy, seed, 0 if windows is None else len(windows.ids_BT), ranks)
    results, base = _swept(setting, caller, windows, settings, schedule)
    return BlockScores(
        model=opened.facts, data=windows.facts if windows else None, criteria=results, base_perplexity=base,
        units=[] if setting.of_blocks else units,
        block_forwards=int(ranks.total(caller.forwards)), processes=ranks.size,
        provenance=provenance(str(opened.device), opened.dtype, round(time.perf_counter() - started, 3)),
    )  # fmt: skip


def refuse_lacking(config: Any, parts: Sequence[str], trust_remote_code: bool = False) -> None:
    """Raise ModelError if a block of a config's model lacks one of these parts: before any weights are opened."""
    anatomy = find_anatomy(meta_model(config, trust_remote_code))
    _refuse_unknown(Branches(anatomy), units_of(parts, len(anatomy.blocks)))


def _refuse_unknown(branches: Branches, units: Sequence[Unit]) -> None:
    """Raise ModelError, naming the class and the block, for a sublayer that a block doesn't have."""
    for unit in units:
        if unit.part != BLOCK:
            branches.refuse_unknown(unit.block, unit.part)


def _swept(
    setting: Setting, caller: BlockCaller, windows: Windows | None, settings: ScoreSettings, schedule: Schedule | None
) -> tuple[dict[str, CriterionScores], float | None]:
    """The scores by each criterion, and the whole model's perplexity."""
    ranks, seed = setting.ranks, setting.seed
    criteria = {spec: kind(setting, options) for spec, (kind, options) in _parsed(settings.criteria).items()}
    base = None
    if windows is not None:
        batches, per_pass = batched(caller, windows.part(share_of(windows, ranks)), settings.batch_size, schedule)
        needing = [c for c in criteria.values() if "gradients" in c.needs]
        kept = KeptStates() if needing and (not caller.disk or per_pass >= len(batches)) else None
        feed, check = Feed(setting, caller, list(criteria.values()), kept), seed if settings.check else None
        masks, most = feed.masks, schedule.most if schedule else None
        observer = feed.observe if feed.is_watching else None
        swept = sweep(caller, batches, masks, observer, feed.weigh, per_pass, check=check, most=most)
        losses = gathered(swept, setting.sequences, ranks)
        base = perplexity_of(losses)
        for criterion in (c for c in criteria.values() if "removals" in c.needs):
            criterion.removals(losses)
        _backward(caller, batches, needing, losses, kept, ranks)
    elif any("weights" in c.needs for c in criteria.values()):
        feed = Feed(setting, caller, list(criteria.values()))
        for i in caller.visit():
            feed.weigh(i)
    return {spec: _checked(spec, c, settings) for spec, c in criteria.items()}, base


def work_of(specs: list[str], shape: tuple[int, int], check: bool = True, parts: Sequence[str] = (BLOCK,)) -> Work:
    """What these criteria ask of the sweep for these parts of every block, for so many sequences of so many tokens
    (0, 0 without data).
    """
    parsed = [parse(spec) for spec in specs]
    needs = frozenset[str]().union(*(kind.needs for kind, _ in parsed))
    turns = {options.get("batches", 1) for kind, options in parsed if "gradients" in kind.needs}
    sublayers = sum(part != BLOCK for part in parts)
    calls = PARTIAL_CALLS * ("states" in needs) * bool(sublayers) + sublayers * ("outputs" in needs)
    return Work(
        *shape, parts=tuple(parts), removals="removals" in needs, states="states" in needs, partial_calls=calls,
        gradients="gradients" in needs, weight_gradients="weight gradients" in needs, turns=max(1, len(turns)),
        check=check and shape[0] > 0,
    )  # fmt: skip


def _parsed(specs: list[str]) -> dict[str, tuple[type[Criterion], dict]]:
    return {spec: parse(spec) for spec in specs}


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


def _checked(spec: str, criterion: Criterion, settings: ScoreSettings) -> CriterionScores:
    result = criterion.result().model_copy(update={"options": criterion.options})
    refuse_no_number(spec, result.scores, criterion.setting.units)
    return with_stability(result, settings.resamples, criterion.setting.seed)
