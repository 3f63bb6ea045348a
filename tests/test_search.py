"""Methods that ask the model: each against brute force or a plain reference, on the embedded model or a tiny one."""

from __future__ import annotations

import json
import random
from importlib import import_module
from itertools import combinations

import pytest
import torch
from architectures import save_tiny
from typer.testing import CliRunner

from shortlm.artifacts import BlockScores, CutPlan
from shortlm.choose import choose, search
from shortlm.choose.budget import read_budget
from shortlm.choose.certainty import certainty
from shortlm.choose.method import call_forwards
from shortlm.choose.methods import ASKING, asked
from shortlm.choose.question import question_of
from shortlm.choose.trials import Trials
from shortlm.cli import app
from shortlm.errors import PlanError, RecipeError, ScoreError, TextError
from shortlm.model import facts_from_config, open_model
from shortlm.recipe import ChooseSettings, ModelSettings, ScoreSettings, SearchSettings, TextSettings
from shortlm.score import score
from shortlm.sweep import BlockCaller, DecodeLatency, Evaluator, sweep
from shortlm.text import open_windows
from shortlm.units import Unit, blocks_mask

MODEL, TEXT = ModelSettings(), TextSettings(sequences=8, length=32)
HOW = SearchSettings(held_out=4, confirm=0, resamples=50)
ENDS = {"protect": "ends"}


def searched(method: str, text: TextSettings = TEXT, how: SearchSettings = HOW, **settings) -> CutPlan:
    return search(MODEL, text, ChooseSettings(method=method, **{"protect": "ends"} | settings), how)


@pytest.fixture(scope="module")
def losses():
    """loss(units): mean cross-entropy of the text without them, each set by itself."""
    opened = open_model(MODEL)
    windows = open_windows(TEXT.for_model("embedded"), opened.tokenizer, opened.model.config.vocab_size)
    caller, known = BlockCaller(opened.model, opened.anatomy), {}

    def loss(units) -> float:
        mask = frozenset(units)
        if mask not in known:
            known[mask] = float(sweep(caller, windows.batches(4), [mask]).mean_M[0])
        return known[mask]

    return loss


def greedy_reference(loss, units, count):
    removed = []
    for _ in range(count):
        rest = [unit for unit in units if unit not in removed]
        removed.append(min(rest, key=lambda unit: (loss([*removed, unit]), unit)))
    return removed


BLOCKS = [Unit(i) for i in range(1, 11)]  # of 12, both ends protected


def test_greedy_is_the_plain_loop(losses):
    expected = greedy_reference(losses, BLOCKS, 3)
    for method in ("greedy:sleb", "greedy", "greedy:race=true", "beam:width=1"):
        plan = searched(method, blocks=3)
        assert plan.units == sorted(expected), method
        (trail,) = plan.search.trails
        assert [set(found.units) for found in trail.found] == [set(expected[: k + 1]) for k in range(3)]
        assert trail.found[-1].nats == pytest.approx(losses(expected), rel=1e-6)
    assert (plan.method, plan.criterion, plan.budget) == ("beam:width=1", "cross-entropy", "3 blocks")


def test_exact_greedy_starts_from_the_states_of_the_round_before():
    exact, lazy = (searched(method, blocks=3, protect="+").search for method in ("greedy:sleb", "greedy"))
    in_full = sum((6 - gone) * (12 - gone - 1) for gone in range(3))
    assert exact.block_forwards - 12 <= in_full / 2  # the whole model comes on top
    assert lazy.block_forwards <= exact.block_forwards
    assert lazy.spared > 0 == exact.spared
    assert len(exact.tried) == 6 + 5 + 4


def test_work_is_said_beforehand():
    said = []
    settings = ChooseSettings(method="greedy:sleb", blocks=3, protect="ends")
    plan = search(MODEL, TEXT, settings, HOW, said.append)
    (line,) = said
    at_most = int(line.split("at most ")[1].split(" block")[0])
    assert line.endswith(f"{at_most} block forwards over 8 sequences")
    assert plan.search.block_forwards == pytest.approx(at_most, rel=0.2)


def test_exhaustive_finds_the_optimum_and_others_come_near(losses):
    best = min(combinations(BLOCKS, 2), key=losses)
    for method in ("exhaustive", "local-search:start=ppl", "beam:width=10", "auto"):
        assert searched(method, blocks=2).units == list(best), method
    with pytest.raises(PlanError, match=r"exhaustive: more than 40 sets meet the budget '2 blocks'; take greedy"):
        searched("exhaustive:most=40", blocks=2)


def test_local_search_ends_where_no_swap_helps(losses):
    removed = searched("local-search:start=ppl", blocks=4).units
    neighbours = (
        [u for u in removed if u != back] + [unit] for back in removed for unit in BLOCKS if unit not in removed
    )
    assert all(losses(units) >= losses(removed) for units in neighbours)


def test_runs_are_the_best_of_all_runs(losses):
    runs = [[Unit(i) for i in range(start, start + 3)] for start in range(1, 9)]
    assert searched("runs", blocks=3).units == min(runs, key=losses)
    with pytest.raises(PlanError, match="no run of neighbouring blocks meets it; protect fewer blocks"):
        searched("runs", blocks=3, protect="0,2,4,6,8,10")
    with pytest.raises(PlanError, match="--method runs: is for whole blocks; with --units ffn take greedy or auto"):
        searched("runs", blocks=3, units=["ffn"])


def test_evolution_is_repeatable_and_keeps_the_budget():
    spec = "evolutionary:generations=3,starts=8,offspring=6,few=64,seed=1"
    one, two = searched(spec, blocks=4), searched(spec, blocks=4)
    assert one.units == two.units and len(one.removed) == 4
    assert not {0, 11} & set(one.removed)
    assert asked("evolutionary:evopress").given | {"generations": 0} == {
        "starts": 64, "offspring": 32, "survivors": 2, "few": 2048, "many": 32768, "generations": 0, "seed": 0
    }  # fmt: skip


def test_auto_is_at_least_as_good_as_its_parts():
    plan = searched("auto", blocks=3, how=SearchSettings(held_out=4, confirm=8, resamples=50))
    trails = {trail.name: trail for trail in plan.search.trails}
    assert list(trails)[-1] == "auto" and set(trails["auto"].found[-1].units) == set(plan.units)
    assert {"one-shot ppl", "best run"} < set(trails)
    assert trails["auto"].block_forwards == plan.search.block_forwards
    assert plan.search.certainty.sets == sum(
        len(t.units) == 3 and all(u.part == "block" for u in t.units) for t in plan.search.tried
    )
    finer = trails["greedy over attention and FFN"].found[-1].units
    facts = plan.model
    assert sum(map(facts.parameters_of, finer)) >= sum(map(facts.parameters_of, plan.units))
    assert all(unit.part != "block" or unit.block for unit in finer) and Unit(0, "attention") not in finer


def test_auto_begins_with_the_choices_of_scores():
    scores = score(MODEL, TEXT, ScoreSettings(criteria=["bi", "depth"], resamples=0))
    settings = ChooseSettings(method="auto", blocks=3, protect="ends")
    plan = search(MODEL, TEXT, settings, HOW, scores=scores)
    names = {trail.name: trail.found[-1].units for trail in plan.search.trails}
    sizes = {trail.name: [len(found.units) for found in trail.found] for trail in plan.search.trails}
    assert sizes["one-shot bi"] == sizes["one-shot ppl"] == sizes["greedy"] == [1, 2, 3]  # how the loss grows
    assert names["one-shot bi"] == [Unit(i) for i in sorted(choose(scores, ChooseSettings(blocks=3, **ENDS)).removed)]
    assert names["one-shot depth"] == [Unit(8), Unit(9), Unit(10)]


@pytest.mark.parametrize("top_k", [1024, 7])
def test_divergence_to_the_whole_model(top_k):
    """Against log_softmax over the whole vocabulary, the tokens that are not kept being one class."""
    plan = searched("greedy:sleb", how=HOW.model_copy(update={"objective": "kl", "top_k": top_k}), blocks=1)
    opened = open_model(MODEL)
    windows = open_windows(TEXT.for_model("embedded"), opened.tokenizer, opened.model.config.vocab_size)
    with torch.no_grad():
        p = opened.model(windows.ids_BT).logits[:, :-1].double().log_softmax(-1)
        opened.anatomy.blocks[plan.removed[0]].forward = lambda h, *args, **kwargs: h
        q = opened.model(windows.ids_BT).logits[:, :-1].double().log_softmax(-1)
    ids = p.topk(top_k).indices if top_k < p.shape[-1] else torch.arange(p.shape[-1]).expand(p.shape)
    p, q = p.gather(-1, ids), q.gather(-1, ids)
    kl = (p.exp() * (p - q)).sum(-1)
    if top_k == 7:
        rest_p, rest_q = 1 - p.exp().sum(-1), 1 - q.exp().sum(-1)
        kl = kl + rest_p * (rest_p.log() - rest_q.log())
    found = plan.search
    assert found.objective == "kl"
    assert found.trails[0].found[0].nats == pytest.approx(float(kl.mean()), rel=1e-3)
    assert found.base_nats > 0.5  # cross-entropy of the whole model, whatever the objective


def test_weighted_texts(tmp_path):
    """The objective is the weighted mean of each text's own mean."""
    other = tmp_path / "other.txt"
    other.write_text("the cat sat on the mat and the dog ran to the sea . " * 200)
    plan = searched("runs", how=HOW.model_copy(update={"mix": [f"{other}=3"]}), blocks=3)
    found = plan.search.trails[0].found[-1]
    parts = []
    for text in (TEXT, TEXT.model_copy(update={"text": str(other)})):
        opened = open_model(MODEL)
        windows = open_windows(text.for_model("embedded"), opened.tokenizer, opened.model.config.vocab_size)
        mask = blocks_mask(plan.removed)
        parts.append(float(sweep(BlockCaller(opened.model, opened.anatomy), windows.batches(4), [mask]).mean_M[0]))
    assert found.nats == pytest.approx(0.25 * parts[0] + 0.75 * parts[1], rel=1e-5)
    assert plan.search.data.source.startswith("1 embedded + 3 ")
    with pytest.raises(TextError, match=r"--mix .*: the weight has to be a number above 0"):
        searched("runs", how=HOW.model_copy(update={"mix": [f"{other}=-1"]}), blocks=3)
    with pytest.raises(TextError, match="is given twice"):
        searched("runs", how=HOW.model_copy(update={"mix": [f"{other}=1", str(other)]}), blocks=3)


def test_the_held_out_text_is_not_that_of_the_search():
    plan = searched("greedy", blocks=2)
    assert plan.search.held_out.sha256 != plan.search.data.sha256
    opened = open_model(MODEL)
    behind = TEXT.for_model("embedded").model_copy(update={"skip": 8, "sequences": 4})
    windows = open_windows(behind, opened.tokenizer, opened.model.config.vocab_size)
    assert windows.facts.sha256 == plan.search.held_out.sha256
    loss = sweep(BlockCaller(opened.model, opened.anatomy), windows.batches(4), [blocks_mask(plan.removed)]).mean_M
    assert plan.search.trails[0].found[-1].held_out_nats == pytest.approx(float(loss[0]), rel=1e-6)


def test_nothing_is_held_out_where_nothing_is_asked_for_or_left(tmp_path):
    plan = searched("runs", how=HOW.model_copy(update={"held_out": 0}), blocks=2)
    assert plan.search.held_out is None and not plan.search.notes
    short = tmp_path / "short.txt"
    short.write_text("the cat sat on the mat . " * 30)
    plan = searched("runs", TEXT.model_copy(update={"text": str(short)}), blocks=2)
    assert plan.search.notes == ["no text was left to hold out: how the sets do on other text is not known"]
    assert plan.search.trails[0].found[0].held_out_nats is None


def test_first_order_filter_reports_how_well_it_ranks():
    plan = searched("greedy:filter=first-order", blocks=2)
    estimate = plan.search.estimate
    assert len(estimate.units) >= 2 and -1 <= estimate.rank_correlation <= 1
    assert plan.units == searched("greedy:sleb", blocks=2).units
    scores = score(MODEL, TEXT, ScoreSettings(criteria=["first_order"], resamples=0)).criteria["first_order"].scores
    for unit, value in zip(estimate.units, estimate.estimated, strict=True):
        assert value == pytest.approx(scores[unit.block], rel=1e-3, abs=1e-5)


def test_finer_units(losses):
    """Greedy by the loss increase per parameter, against the plain loop."""
    plan = searched("greedy:sleb", units=["attention", "ffn"], drop_params="10%")
    facts, removed = plan.model, frozenset()
    goal, units = 0.1 * facts.parameters, [Unit(i, part) for i in range(1, 11) for part in ("attention", "ffn")]

    def cost(units):
        return sum(map(facts.parameters_of, units))

    def grown(removed, unit):
        other = Unit(unit.block, "ffn" if unit.part == "attention" else "attention")
        return removed - {other} | {Unit(unit.block)} if other in removed else removed | {unit}

    def nearer(removed, unit):
        return abs(cost(grown(removed, unit)) - goal) < abs(cost(removed) - goal)

    def rate(removed, unit):
        after = grown(removed, unit)
        return (losses(after) - losses(removed)) / (cost(after) - cost(removed)), unit

    while rest := [u for u in units if not removed & {u, Unit(u.block)} and nearer(removed, u)]:
        removed = grown(removed, min(rest, key=lambda unit, removed=removed: rate(removed, unit)))
    assert set(plan.units) == removed
    assert plan.parameters_after == facts.parameters - cost(removed)


def test_budgets_of_the_cache_and_of_speed(monkeypatch):
    plan = searched("greedy", units=["attention", "ffn"], drop_kv="25%")
    assert len([u for u in plan.units if u.part != "ffn"]) == 3 and all(u.part != "ffn" for u in plan.units)
    assert plan.budget == "25% of the KV cache"
    told = DecodeLatency([2.0] * 12, [1.0] * 12, [3.5] * 12, 8.0, 64, 16)
    costs = import_module("shortlm.choose.costs")  # shortlm.choose is the verb
    monkeypatch.setattr(costs, "decode_latencies", lambda opened: told)
    plan = searched("greedy", units=["attention", "ffn"], speed_up=1.25)
    assert told.total / told.without(plan.units) >= 1.25 - 1e-9
    for unit in plan.units:
        fewer = [u for u in plan.units if u != unit]
        assert told.total / told.without(fewer) < 1.25
    with pytest.raises(PlanError, match=r"budget 'decoding 50.0 times as fast' can't be met"):
        searched("greedy", units=["attention", "ffn"], speed_up=50)
    with pytest.raises(PlanError, match="--drop-kv is asked of the model: give --model and a --method that asks it"):
        choose(score(MODEL, TEXT, ScoreSettings(criteria=["depth"])), ChooseSettings(drop_kv="25%"))


def test_one_shot_by_scores_of_sublayers():
    scores = score(MODEL, TEXT, ScoreSettings(criteria=["bi"], units=["attention", "ffn"], resamples=0))
    plan = choose(scores, ChooseSettings(units=["attention", "ffn"], blocks=2, protect="ends"))
    free = [k for k, unit in enumerate(scores.rows) if 0 < unit.block < 11]
    order = sorted(free, key=lambda k: scores.criteria["bi"].scores[k])
    assert set(plan.units) == {scores.rows[k] for k in order[:4]}
    blocks = score(MODEL, TEXT, ScoreSettings(criteria=["bi"], resamples=0))
    with pytest.raises(PlanError, match="not of all of the units that may go; score with --units attention,ffn"):
        choose(blocks, ChooseSettings(units=["attention", "ffn"], blocks=2))


class _Stopped(Exception):
    pass


@pytest.mark.parametrize("after", [1, 2, 3])
def test_an_interrupted_search_goes_on(tmp_path, monkeypatch, after):
    out, settings = tmp_path / "plan.json", ChooseSettings(method="greedy:sleb", blocks=3, protect="ends")
    whole, calls = search(MODEL, TEXT, settings, HOW), [0]
    own = Evaluator._swept

    def stopping(self, *args):
        calls[0] += 1
        if calls[0] > after:
            raise _Stopped
        return own(self, *args)

    monkeypatch.setattr(Evaluator, "_swept", stopping)
    with pytest.raises(_Stopped):
        search(MODEL, TEXT, settings, HOW, out=out)
    (kept,) = tmp_path.iterdir()
    assert len(list(kept.iterdir())) == after and not out.exists()
    calls[0], before = -10, after
    again = search(MODEL, TEXT, settings, HOW, out=out)
    assert calls[0] + 10 == 3 - before + 1  # the other rounds, and the held-out text
    assert again.units == whole.units
    assert [t.nats for t in again.search.tried] == [t.nats for t in whole.search.tried]
    assert not list(tmp_path.iterdir())  # what was kept is gone with the end of the search


def test_another_search_does_not_take_over_what_was_kept(tmp_path, monkeypatch):
    folders = []
    searching = import_module("shortlm.choose.searching")
    monkeypatch.setattr(searching, "Recall", lambda folder, writes: folders.append(folder) or _no_recall())
    for blocks in (2, 3):
        settings = ChooseSettings(method="greedy", blocks=blocks, protect="ends")
        search(MODEL, TEXT, settings, HOW, out=tmp_path / "plan.json")
    assert len(set(folders)) == 2


def _no_recall():
    from shortlm.sweep import Recall

    return Recall()


def test_a_budget_of_minutes_ends_the_search(tmp_path):
    how = HOW.model_copy(update={"budget_minutes": 1e-6})
    plan = searched("auto", how=how, blocks=5)
    names = [trail.name for trail in plan.search.trails]
    assert "greedy" in names and "exhaustive" not in names and not any(name.startswith("beam") for name in names)
    assert any("the budget of work was spent" in note for note in plan.search.notes)
    whole = searched("auto", blocks=5)
    assert whole.search.block_forwards > plan.search.block_forwards


def test_text_until_the_choice_is_stable():
    text = TEXT.model_copy(update={"sequences": "auto"})
    plan = searched("greedy", text, HOW.model_copy(update={"most_sequences": 40}), blocks=2)
    assert plan.search.data.sequences in (10, 20, 40)
    assert "the choice is stable" in plan.search.notes[-1] or "the limit of 40" in plan.search.notes[-1]
    with pytest.raises(RecipeError, match="--sequences auto: is for a method of choose that asks the model"):
        score(MODEL, text, ScoreSettings(criteria=["ppl"]))


def test_one_sequence_says_what_it_cannot_tell():
    plan = searched("greedy", TEXT.model_copy(update={"sequences": 1}), blocks=2)
    assert plan.search.certainty is None
    assert any("one sequence" in note for note in plan.search.notes)


def test_how_sure_a_choice_is():
    """Against resamples drawn and compared one by one."""
    plan = searched("exhaustive", blocks=2, how=HOW.model_copy(update={"resamples": 400}))
    sure = plan.search.certainty
    assert (sure.resamples, sure.sets) == (400, 45)
    nats = {}

    class Known:
        sequences, shares_S = 3, torch.full((3,), 1 / 3, dtype=torch.float64)

    trials = Trials(
        question_of(ChooseSettings(**ENDS), plan.model, read_budget(ChooseSettings(blocks=1), plan.model)), Known()
    )
    for block, values in ((3, [1.0, 2.0, 3.0]), (4, [3.0, 2.0, 1.5])):
        nats[block] = trials._known[blocks_mask([block])] = torch.tensor(values, dtype=torch.float64)
    found = certainty(trials, blocks_mask([4]), 2000)
    rng, regrets = random.Random(0), []
    for _ in range(20000):
        drawn = [rng.randrange(3) for _ in range(3)]
        means = {block: float(values[drawn].mean()) for block, values in nats.items()}
        regrets.append(means[4] - min(means.values()))
    assert found.regret == pytest.approx(sum(regrets) / len(regrets), rel=0.1)
    assert found.same == pytest.approx(sum(r == 0 for r in regrets) / len(regrets), abs=0.03)
    assert found.overlap == found.same  # the sets have nothing in common


def test_from_disk_as_in_memory(llama_folder):
    settings, text = ChooseSettings(method="greedy", blocks=2, protect="ends"), TEXT
    one, other = (
        search(
            ModelSettings(model=str(llama_folder), stream=stream),
            text.model_copy(update={"text": "embedded"}),
            settings,
            HOW,
        )
        for stream in ("off", "on")
    )
    assert one.units == other.units
    assert other.search.trails[0].found[-1].nats == pytest.approx(one.search.trails[0].found[-1].nats, rel=1e-6)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("gready", r"unknown method 'gready'; did you mean .greedy"),
        ("greedy:lasy=true", "method 'greedy:lasy=true': unknown option 'lasy'; did you mean 'lazy'"),
        ("greedy:lazy=maybe", "method 'greedy:lazy=maybe': lazy is 'maybe'; known: true, false"),
        ("beam:width=0", "method 'beam:width=0': width is 0; at least 1 is needed, at most 64"),
        ("beam:width=wide", "method 'beam:width=wide': width is 'wide'; a whole number is needed"),
        ("greedy:slab", "method 'greedy': unknown preset 'slab'; did you mean 'sleb'"),
        ("runs:x", "method 'runs': unknown preset 'x'; it has none"),
        ("local-search:start=scores", "begins with the choice by scores; give the file that 'score' wrote"),
    ],
)
def test_bad_methods(method, message):
    with pytest.raises(PlanError, match=message):
        searched(method, blocks=2)


def test_bad_units_and_budgets(tmp_path):
    with pytest.raises(PlanError, match="--criterion bi: --method greedy asks the model; give --method one-shot"):
        searched("greedy", blocks=2, criterion="bi")
    scores = score(MODEL, TEXT, ScoreSettings(criteria=["depth"]))
    other = scores.model_copy(update={"model": scores.model.model_copy(update={"name": "M", "block_parameters": [1]})})
    with pytest.raises(
        PlanError, match=r"the scores are of M \(12 blocks\), the model is embedded \(12 blocks\); give"
    ):
        search(MODEL, TEXT, ChooseSettings(method="greedy", blocks=2), HOW, scores=other)
    with pytest.raises(
        PlanError, match="budget '10 blocks' can't be met: all 12 units that may go come to 6 of the 10"
    ):
        searched("greedy", units=["attention", "ffn"], blocks=10, protect="+")
    folder = save_tiny("gpt2", tmp_path / "gpt2")
    facts = facts_from_config(ModelSettings(model=str(folder)))
    lacking = facts.model_copy(update={"attention_parameters": None, "ffn_parameters": None})
    settings = ChooseSettings(blocks=1, units=["ffn"])
    with pytest.raises(PlanError, match=r"--units ffn: .* has no ffn that can be told apart from its blocks"):
        question_of(settings, lacking, read_budget(settings, lacking))


def test_calls_are_counted_by_their_prefix_tree():
    facts = facts_from_config(MODEL)
    settings = ChooseSettings(blocks=2, protect="ends")
    question = question_of(settings, facts, read_budget(settings, facts))
    for name, method in ASKING.items():
        calls = list(method.calls(question, method.options.defaults))
        assert calls and all(call_forwards(call, 12) > 0 for call in calls), name


def test_the_commands(tmp_path):
    scores, plan = tmp_path / "scores.json", tmp_path / "plan.json"
    score(MODEL, TEXT, ScoreSettings(criteria=["bi"], resamples=0)).save(scores)
    common = ["--model", "embedded", "--sequences", "8", "--length", "32", "--held-out", "4", "--drop", "25%"]
    done = CliRunner().invoke(app, ["choose", str(scores), "--method", "auto", *common, "-o", str(plan)])
    assert done.exit_code == 0, done.output
    assert "one-shot bi: " in done.stdout and "held out" in done.stdout
    assert "attention and FFN" in done.stdout
    assert isinstance(BlockScores.load(scores), BlockScores) and json.loads(plan.read_text())["method"] == "auto"
    done = CliRunner().invoke(app, ["choose", "--preset", "slob", *common])
    assert done.exit_code == 2 and "preset 'slob' is unknown" in done.output
    done = CliRunner().invoke(app, ["choose", "--preset", "sleb", *common, "--text", "embedded", "--no-shuffle"])
    assert done.exit_code == 0, done.output
    assert "greedy:sleb" in done.stdout


def test_a_loss_that_is_no_number_names_the_set(monkeypatch):
    own = Evaluator._swept

    def broken(self, masks, *rest):
        losses = own(self, masks, *rest)
        losses.nats_MS[0] = torch.nan
        return losses

    monkeypatch.setattr(Evaluator, "_swept", broken)
    with pytest.raises(ScoreError, match="without 1 the loss is no number; compute in --dtype float32"):
        searched("greedy", blocks=2)
