"""The race for the k least important blocks: the full sweep's choice, less work, and what it doesn't answer."""

from __future__ import annotations

from math import exp, log

import pytest
import torch
from typer.testing import CliRunner

from shortlm.artifacts import BlockScores, CutPlan
from shortlm.choose import choose, race_scores, refuse_infeasible, search
from shortlm.choose.candidates import Candidates
from shortlm.cli import app
from shortlm.errors import PlanError, RecipeError, ScoreError
from shortlm.recipe import ChooseSettings, ModelSettings, ScoreSettings, TextSettings, validated
from shortlm.report import Evidence, write_page
from shortlm.score import score
from shortlm.units import Unit

MODEL = ModelSettings()
TEXT = TextSettings(sequences=32, length=64)


def field_of(means, noise=0.1, sequences=8, total=64, wanted=2) -> Candidates:
    generator = torch.Generator().manual_seed(0)
    common_ST = torch.randn(sequences, 50, generator=generator)  # what all share cancels in the comparison
    own_CST = torch.randn(len(means), sequences, 50, generator=generator) * noise
    candidates = Candidates(wanted, total, list(range(len(means))))
    candidates.seen(torch.tensor(means)[:, None, None] + common_ST + own_CST)
    return candidates


def test_clear_cases_end_the_race_at_once():
    candidates = field_of([3.0, 1.0, 2.9, 1.1])
    candidates.eliminate()
    assert (sorted(candidates.settled), candidates.racing) == ([1, 3], [])


def test_what_is_not_clear_goes_on():
    candidates = field_of([3.0, 1.0, 2.0, 2.0001])
    candidates.eliminate()
    assert (candidates.settled, candidates.racing) == ([1], [2, 3])
    assert candidates.nats_CST.shape == (2, 8, 50)


def test_nothing_is_open_when_all_sequences_have_been_seen():
    candidates = field_of([3.0, 1.0, 2.0, 2.0001], sequences=8, total=8)
    candidates.eliminate()
    assert len(candidates.settled) == 2 and not candidates.racing


@pytest.mark.parametrize("select", ["3", "4:ends", "2:none", "5:0,1,2,-1"])
def test_the_choice_is_that_of_the_full_sweep(select):
    count, _, rule = select.partition(":")
    full = score(MODEL, TEXT, ScoreSettings(criteria=["ppl"], resamples=0))
    raced = race_scores(MODEL, TEXT, ScoreSettings(criteria=["ppl"], select=select))
    settings = ChooseSettings(blocks=int(count), protect=rule or "+")
    assert choose(raced, settings).removed == choose(full, settings).removed
    race = raced.criteria["ppl"].race
    assert raced.block_forwards < race.block_forwards_full
    assert raced.base_perplexity == pytest.approx(full.base_perplexity, rel=0.05)
    assert min(race.sequences) == 2 and max(race.sequences) <= 32
    assert BlockScores.model_validate_json(raced.model_dump_json()) == raced


def test_a_race_answers_one_question_only():
    raced = race_scores(MODEL, TEXT, ScoreSettings(criteria=["ppl"], select="3"))
    message = r"the race was for 3 blocks with \[0, 1, 2, 3, 10, 11\] protected, not for 2 with .*--select 2"
    with pytest.raises(PlanError, match=message):
        choose(raced, ChooseSettings(blocks=2))
    with pytest.raises(PlanError, match=r"not for 3 with \[0, 11\]"):
        choose(raced, ChooseSettings(blocks=3, protect="ends"))
    with pytest.raises(PlanError, match="--method contiguous: a race settles one-shot choices only"):
        choose(raced, ChooseSettings(blocks=3, method="contiguous"))


def test_bad_races():
    with pytest.raises(ScoreError, match="--select 3: a race is by ppl alone; give --criteria ppl"):
        race_scores(MODEL, TEXT, ScoreSettings(criteria=["ppl", "bi"], select="3"))
    with pytest.raises(PlanError, match=r"--select 6: 6 blocks may go \(protected: \+\); select fewer"):
        race_scores(MODEL, TEXT, ScoreSettings(criteria=["ppl"], select="6"))
    with pytest.raises(RecipeError, match="--select: string should match pattern"):
        validated(ScoreSettings, {"select": "some"})


def test_a_search_gives_the_plan_and_what_it_took():
    settings = ChooseSettings(blocks=3, method="race", protect="ends")
    full = score(MODEL, TEXT, ScoreSettings(criteria=["ppl"], resamples=0))
    plan = search(MODEL, TEXT, settings)
    assert plan.removed == choose(full, settings.model_copy(update={"method": "one-shot"})).removed
    assert (plan.method, plan.criterion, plan.budget) == ("race", "ppl", "3 blocks")
    found = plan.search
    assert found.block_forwards < 12 * 13 // 2  # the full sweep's
    assert [tried.units for tried in found.tried] == [[Unit(i)] for i in range(12)]
    for i, tried in enumerate(found.tried):
        assert exp(tried.nats) == pytest.approx(plan.scores[i], rel=1e-9)
        assert tried.tokens == 64 * tried.sequences if i in plan.removed else tried.tokens >= 64 * 2
    longest = max(tried.sequences for tried in found.tried)
    assert found.base_nats == pytest.approx(log(full.base_perplexity), rel=0.05)
    assert 2 <= longest <= 32 == found.data.sequences
    assert CutPlan.model_validate_json(plan.model_dump_json()) == plan


def test_what_reads_and_what_asks_are_told_apart():
    scores = score(MODEL, TEXT, ScoreSettings(criteria=["depth"]))
    with pytest.raises(PlanError, match=r"--method race: asks the model; give --model \(scores may stand beside it\)"):
        choose(scores, ChooseSettings(blocks=3, method="race"))
    with pytest.raises(PlanError, match="--method one-shot: reads scores; give the file that 'score' wrote"):
        search(MODEL, TEXT, ChooseSettings(blocks=3))
    with pytest.raises(PlanError, match=r"unknown method 'rice'; did you mean .race"):
        choose(scores, ChooseSettings(blocks=3, method="rice"))
    with pytest.raises(PlanError, match="unknown method 'best'"):
        refuse_infeasible(ChooseSettings(blocks=3, method="best"), ScoreSettings(), scores.model, dict)
    with pytest.raises(PlanError, match=r"6 of 6 blocks are to go that may; there is nothing to choose"):
        search(MODEL, TEXT, ChooseSettings(blocks=6, method="race"))
    with pytest.raises(ScoreError, match=r"--select 3: a race chooses; in Python it is shortlm.race_scores"):
        score(MODEL, TEXT, ScoreSettings(criteria=["ppl"], select="3"))


def test_the_command_asks_the_model(tmp_path):
    args = ["choose", "--method", "race", "--blocks", "3", "--model", "embedded", "--sequences", "8", "--length", "64"]
    done = CliRunner().invoke(app, [*args, "-o", str(tmp_path / "plan.json")])
    assert done.exit_code == 0, done.output
    assert CutPlan.load(tmp_path / "plan.json").method == "race"
    assert "remove 3 of 12 blocks" in done.stdout
    assert "asked the model about 12 sets: " in done.stdout
    page = write_page(tmp_path / "page.html", Evidence("T", plan=CutPlan.load(tmp_path / "plan.json"))).read_text()
    assert "Asked the model" in page and "12 sets on 8 windows" in page
    again = CliRunner().invoke(app, [*args, "-o", str(tmp_path / "plan.json")])
    assert again.exit_code == 2 and "exists" in again.stderr
