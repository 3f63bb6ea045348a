"""The race for the k least important blocks: the full sweep's choice, less work, and what it doesn't answer."""

from __future__ import annotations

import pytest
import torch

from shortlm.artifacts import BlockScores
from shortlm.choose import choose
from shortlm.errors import PlanError, RecipeError, ScoreError
from shortlm.recipe import ChooseSettings, ModelSettings, ScoreSettings, TextSettings, validated
from shortlm.score import score
from shortlm.score.racing import Field

MODEL = ModelSettings()
TEXT = TextSettings(sequences=32, length=64)


def field_of(means, noise=0.1, sequences=8, total=64, wanted=2) -> Field:
    generator = torch.Generator().manual_seed(0)
    common_ST = torch.randn(sequences, 50, generator=generator)  # what all share cancels in the comparison
    own_CST = torch.randn(len(means), sequences, 50, generator=generator) * noise
    ground = Field(wanted, total, list(range(len(means))))
    ground.seen(torch.tensor(means)[:, None, None] + common_ST + own_CST)
    return ground


def test_clear_cases_end_the_race_at_once():
    ground = field_of([3.0, 1.0, 2.9, 1.1])
    ground.thin_out()
    assert (sorted(ground.settled), ground.racing) == ([1, 3], [])


def test_what_is_not_clear_goes_on():
    ground = field_of([3.0, 1.0, 2.0, 2.0001])
    ground.thin_out()
    assert (ground.settled, ground.racing) == ([1], [2, 3])
    assert ground.nats_CST.shape == (2, 8, 50)


def test_nothing_is_open_when_all_sequences_have_been_seen():
    ground = field_of([3.0, 1.0, 2.0, 2.0001], sequences=8, total=8)
    ground.thin_out()
    assert len(ground.settled) == 2 and not ground.racing


@pytest.mark.parametrize("select", ["3", "4:ends", "2:none", "5:0,1,2,-1"])
def test_the_choice_is_that_of_the_full_sweep(select):
    count, _, rule = select.partition(":")
    full = score(MODEL, TEXT, ScoreSettings(criteria=["ppl"], resamples=0))
    raced = score(MODEL, TEXT, ScoreSettings(criteria=["ppl"], select=select))
    settings = ChooseSettings(blocks=int(count), protect=rule or "+")
    assert choose(raced, settings).removed == choose(full, settings).removed
    race = raced.criteria["ppl"].race
    assert raced.block_forwards < race.block_forwards_full
    assert raced.base_perplexity == pytest.approx(full.base_perplexity, rel=0.05)
    assert min(race.sequences) == 2 and max(race.sequences) <= 32
    assert BlockScores.model_validate_json(raced.model_dump_json()) == raced


def test_a_race_answers_one_question_only():
    raced = score(MODEL, TEXT, ScoreSettings(criteria=["ppl"], select="3"))
    message = r"the race was for 3 blocks with \[0, 1, 2, 3, 10, 11\] protected, not for 2 with .*--select 2"
    with pytest.raises(PlanError, match=message):
        choose(raced, ChooseSettings(blocks=2))
    with pytest.raises(PlanError, match=r"not for 3 with \[0, 11\]"):
        choose(raced, ChooseSettings(blocks=3, protect="ends"))
    with pytest.raises(PlanError, match="--method contiguous: a race settles one-shot choices only"):
        choose(raced, ChooseSettings(blocks=3, method="contiguous"))


def test_bad_races():
    with pytest.raises(ScoreError, match="--select 3: a race is by ppl alone; give --criteria ppl"):
        score(MODEL, TEXT, ScoreSettings(criteria=["ppl", "bi"], select="3"))
    with pytest.raises(PlanError, match=r"--select 6: 6 blocks may go \(protected: \+\); select fewer"):
        score(MODEL, TEXT, ScoreSettings(criteria=["ppl"], select="6"))
    with pytest.raises(RecipeError, match="--select: string should match pattern"):
        validated(ScoreSettings, {"select": "some"})
