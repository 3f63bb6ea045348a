"""A race: which k blocks are the least important by perplexity, with fewer block forwards than scoring all of them.

The sequences come in rounds. After each one, a block that is clearly worse than the k-th best leaves, and one that
is clearly better than the (k+1)-th best is settled; both are no longer computed (candidates.py). "Clearly" is a paired
comparison, token by token on the same sequences, of how the mean over *all* the sequences could still differ: what
has been seen can't change any more, so the margin shrinks to nothing as the last sequences come.

Shapes: S sequences, L blocks.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import exp

import torch

from shortlm.artifacts import BlockScores, CriterionScores, Race, provenance
from shortlm.choose.candidates import ROUNDS, Candidates, rounds_for, rounds_of, selected
from shortlm.choose.method import Call, Given, Method
from shortlm.choose.question import Choice, Question
from shortlm.choose.trials import Trials
from shortlm.errors import PlanError, ScoreError
from shortlm.model import ModelFiles
from shortlm.recipe import ModelSettings, Plain, ScoreSettings, TextSettings, settings_of
from shortlm.recipe.specs import Options
from shortlm.sweep import Evaluator, Say, Work, open_job, perplexity_of, refuse_no_number
from shortlm.units import BLOCK, Unit, blocks_mask, protected_blocks


def refuse_unraceable(settings: ScoreSettings) -> None:
    """Raise ScoreError unless whole blocks by perplexity alone are asked for, whose sequences are comparable token by
    token.
    """
    if settings.select and settings.criteria != ["ppl"]:
        raise ScoreError(
            f"--select {settings.select}: a race is by ppl alone; give --criteria ppl, or leave --select out"
        )
    if settings.select and settings.parts() != [BLOCK]:
        raise ScoreError(
            f"--select {settings.select}: a race is for whole blocks; give --units blocks, or leave --select out"
        )


@dataclass(frozen=True)
class Found:
    """What a race has found out."""

    selected: list[int]
    scores: list[float]  # perplexities without each block, each from the sequences it has run in
    sequences: list[int]
    base: float  # the whole model's perplexity
    forwards_full: int  # block forwards of the full sweep, in the same batches


def race(trials: Trials, given: Given) -> Choice:
    """The choice of so many blocks as the budget says. Raises PlanError if it doesn't say a number."""
    question = trials.question
    found = race_for(question.count(), question.protected, trials.evaluator)
    return Choice([Unit(i) for i in found.selected], "ppl", found.scores)


def race_scores(
    model: ModelSettings | Plain, text: TextSettings | Plain | None = None,
    settings: ScoreSettings | Mapping[str, object] | None = None, say: Say | None = None,
) -> BlockScores:  # fmt: skip
    """Block scores of a race, as `score --select` writes them, for one choice only: `settings.race()`.

    Protected blocks are scored in the first round only. Raises PlanError if there is nothing to choose from.
    """
    model, text = settings_of(ModelSettings, model), settings_of(TextSettings, text)
    settings = settings_of(ScoreSettings, settings)
    refuse_unraceable(settings)
    wanted, rule = settings.race()
    started = time.perf_counter()

    def work(files: ModelFiles, shape: tuple[int, int]) -> Work:
        return Work(*shape, removals=True, check=settings.check)

    with open_job(model, text, work, settings.batch_size, say) as job:
        evaluator = Evaluator(job, settings.batch_size, settings.check, rounds=ROUNDS)
        protected = protected_blocks(rule, evaluator.n_blocks)
        if not wanted < evaluator.n_blocks - len(protected):
            free = evaluator.n_blocks - len(protected)
            raise PlanError(f"--select {wanted}: {free} blocks may go (protected: {rule}); select fewer")
        found = race_for(wanted, protected, evaluator)
        entry = Race(
            selected=found.selected, protected=protected, sequences=found.sequences,
            block_forwards_full=found.forwards_full,
        )  # fmt: skip
        seconds = round(time.perf_counter() - started, 3)
        return BlockScores(
            model=job.opened.facts, data=evaluator.windows.facts, base_perplexity=found.base, processes=job.ranks.size,
            criteria={"ppl": CriterionScores(scores=found.scores, unit="perplexity", race=entry)},
            block_forwards=evaluator.search().block_forwards,
            provenance=provenance(str(job.opened.device), job.opened.dtype, seconds),
        )  # fmt: skip


def race_for(wanted: int, protected: list[int], evaluator: Evaluator) -> Found:
    """Which `wanted` of the blocks that aren't protected are the least important."""
    n_blocks, count = evaluator.n_blocks, evaluator.sequences
    candidates = Candidates(wanted, count, [i for i in range(n_blocks) if i not in protected])
    nats_L, seen_L, tokens_L = torch.zeros(n_blocks, dtype=torch.float64), [0] * n_blocks, [0.0] * n_blocks
    tokens = nats = 0.0
    for parts in rounds_of(len(evaluator.parts), rounds_for(evaluator)):
        running = candidates.racing if parts[0] else list(range(n_blocks))
        losses = evaluator.losses([blocks_mask([i]) for i in running], parts, per_token=True)
        assert losses.each_MST is not None
        perplexity_of(losses)
        nats, tokens = nats + float(losses.base_S.sum()), tokens + float(losses.tokens_S.sum())
        for row, i in enumerate(running):
            nats_L[i] += losses.nats_MS[row].sum()
            seen_L[i], tokens_L[i] = evaluator.parts[parts[-1]].stop, tokens
        candidates.seen(losses.each_MST[[running.index(i) for i in candidates.racing]])
        candidates.eliminate()
        if not candidates.racing:
            break
    full = n_blocks * (n_blocks + 1) // 2
    scores = (nats_L / torch.tensor(tokens_L, dtype=torch.float64)).exp().tolist()
    refuse_no_number("ppl", scores)
    return Found(selected(candidates, nats_L), scores, seen_L, exp(nats / tokens), full)


def _calls(question: Question, given: Given) -> Iterator[Call]:
    yield Call([frozenset({unit}) for unit in question.free], [frozenset()])


RACE = Method(
    race, "one-shot by perplexity, with fewer block forwards", Options(), _calls, by_parts=lambda given: True,
    blocks_only=True,
)  # fmt: skip
