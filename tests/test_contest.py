"""compare RECIPE.yaml: one model made smaller in several ways at one number of parameters, measured side by side."""

from __future__ import annotations

import json

import pytest
from architectures import save_tiny
from made_by_hand import facts, measurements
from test_measured_report import benchmark
from typer.testing import CliRunner

from shortlm import ChooseSettings, Contest, ModelSettings, load_contest
from shortlm.artifacts import Measurement
from shortlm.choose import asks, refuse_infeasible
from shortlm.choose.budget import read_budget
from shortlm.cli import app
from shortlm.errors import PlanError, RankError, RecipeError
from shortlm.model import facts_from_config
from shortlm.recipe import validated
from shortlm.recipe.shipped import FOLDER as RECIPES
from shortlm.report.speed import speed_rows
from shortlm.report.tradeoff import by_latency, by_throughput
from shortlm.run import compare_ways
from shortlm.run.contest import parameters_left
from shortlm.score import parse
from shortlm.width import read_method

SHIPPED = sorted((RECIPES / "contests").glob("*.yaml"))
SMALL = {
    "name": "small", "text": {"text": "embedded", "sequences": 4, "length": 32}, "drop": "25%",
    "ways": [
        {"name": "depth: bi", "choose": {"criterion": "bi"}},
        {"name": "width: wanda + repair", "width": {"method": "wanda-sp"},
         "repair": {"calibration": 12, "validation": 4}},
    ],
    "eval": {"held_out": 4, "new_tokens": 0},
}  # fmt: skip


def contest(**changes) -> Contest:
    return validated(Contest, SMALL | changes)


def test_ways_at_one_number_of_parameters(tmp_path):
    page = compare_ways(contest(), tmp_path / "out")
    assert page == tmp_path / "out" / "comparison" / "report.html" and "width: wanda + repair" in page.read_text()
    measured = [Measurement.load(path) for path in sorted((tmp_path / "out" / "comparison").glob("eval-*.json"))]
    assert [m.role for m in measured] == ["dense", "depth: bi", "width: wanda + repair"]
    dense, depth, width = (m.model.parameters for m in measured)
    assert depth < dense and abs(width - depth) <= 12 * 3 * 96, "a channel of each block"
    said: list[str] = []
    compare_ways(contest(), tmp_path / "out", say=said.append)
    assert sum("kept" in line for line in said) == 3 + 2 + 3, said  # of depth, width, comparison
    more = [*SMALL["ways"], {"name": "width: flap", "width": {"method": "flap", "shape": "free"}}]
    compare_ways(contest(ways=more), tmp_path / "out", say=said.append)
    assert (tmp_path / "out" / "comparison" / "eval-3.json").exists()


def test_every_result_is_healed(tmp_path):
    phase = {"method": "cpt", "data": ["embedded"], "separator": "\n\n", "length": 24, "batch": 4, "held_out": 4,
             "steps": 2, "lr": 1e-3}  # fmt: skip
    ways = [{"name": "width", "width": {"method": "llm-pruner", "shape": "free"}}, {"name": "depth", "choose": {}}]
    compare_ways(contest(ways=ways, heal={"phases": [phase]}), tmp_path / "out")
    for way, last in (("width", "heal"), ("depth", "model")):
        assert (tmp_path / "out" / "ways" / way / last / "healing.json").exists()
    healed = Measurement.load(tmp_path / "out" / "comparison" / "eval-1.json")
    assert healed.role == "width" and healed.model.name.endswith("heal")


def test_a_width_asks_nothing_of_the_blocks_that_choose_would_protect():
    """The first four and the last two: of a model of five blocks, all of them."""
    only = contest(ways=[{"name": "width", "width": {"method": "flap"}}])
    recipe = only.recipe(only.ways[0])
    assert recipe.choose.protect == "none" and recipe.choose.drop == "25%"
    five = facts("five", 5)
    refuse_infeasible(recipe.choose, recipe.score, five, lambda: 0.0, recipe.rounds)
    with pytest.raises(PlanError, match="all 5 blocks are protected"):
        usual = recipe.choose.model_copy(update={"protect": "+"})
        refuse_infeasible(usual, recipe.score, five, lambda: 0.0, recipe.rounds)


def test_what_is_refused():
    def refused(**changes) -> str:
        with pytest.raises(RecipeError) as error:
            contest(**changes)
        return str(error.value)

    assert "give one of choose and width" in refused(ways=[{"name": "a"}])
    both = {"name": "a", "choose": {}, "width": {}}
    assert "give one of choose and width" in refused(ways=[both])
    assert "all ways have one budget" in refused(ways=[{"name": "a", "choose": {"blocks": 3}}])
    assert "all ways have one budget" in refused(ways=[{"name": "a", "width": {"ratio": "20%"}}])
    assert "two are called" in refused(ways=[{"name": "a b", "choose": {}}, {"name": "a-b", "choose": {}}])
    assert "name" in refused(ways=[{"name": "../x", "choose": {}}])


def test_what_the_widths_are_to_leave(tmp_path):
    facts = facts_from_config(contest().model)
    assert parameters_left(contest()) == facts.parameters - 3 * facts.block_parameters[0]
    for blocks, gone in ((10, 3), (18, 5), (26, 7)):  # halves up, as choose rounds them
        save_tiny("llama", tmp_path / str(blocks), num_hidden_layers=blocks)
        model = ModelSettings(model=str(tmp_path / str(blocks)))
        facts = facts_from_config(model)
        left = parameters_left(contest().model_copy(update={"model": model}))
        assert left == facts.parameters - gone * facts.block_parameters[0]
        assert read_budget(ChooseSettings(drop="25%"), facts).goal == gone


def test_the_command_takes_a_recipe_alone(tmp_path):
    recipe = tmp_path / "ways.yaml"
    recipe.write_text(json.dumps(SMALL))
    result = CliRunner().invoke(app, ["compare", str(recipe), "embedded", "--out", str(tmp_path / "out")])
    assert result.exit_code == 2 and "a recipe of ways says all settings" in result.stderr
    result = CliRunner().invoke(app, ["compare", str(recipe), "--length", "64", "--out", str(tmp_path / "out")])
    assert result.exit_code == 2 and not (tmp_path / "out").exists()
    wrong = SMALL | {"ways": [{"name": "w", "width": {"method": "flop"}}]}
    recipe.write_text(json.dumps(wrong))
    result = CliRunner().invoke(app, ["compare", str(recipe), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2 and "did you mean 'flap'" in result.stderr and not (tmp_path / "out").exists()


def test_several_processes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RankError, match="in one process"):
        compare_ways(contest(), tmp_path / "out")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_contests(path):
    found = load_contest(path)
    assert {way.name.partition(":")[0] for way in found.ways} == {"depth", "width"} and found.bench
    for way in found.ways:
        if way.width:
            read_method(way.width.method)
        else:
            assert way.choose is not None
            question = way.choose.method if asks(way.choose.method) else way.choose.criterion
            assert question and (asks(way.choose.method) or parse(question))
    assert path.stem == "embedded" or found.source


def test_latency_of_the_smallest_batch_and_throughput_of_the_largest():
    bench = benchmark()
    (times, small), (speeds, large) = by_latency(measurements(), bench), by_throughput(measurements(), bench)
    rows = {(row.role, row.case.words): row for row in speed_rows(bench)}
    assert small != large and {p.role for p in times} == {p.role for p in speeds} == {"dense", "cut"}
    for at, rate in zip(times, speeds, strict=True):
        assert at.x == pytest.approx(1000 * (rows[at.role, small].per_token or 0))
        assert rate.x == rows[rate.role, large].tokens_per_second
    one = bench.model_copy(update={"cells": [c for c in bench.cells if c.batch == 1]})
    assert by_latency(measurements(), one) == ([], "") and by_throughput(measurements(), one)[0]
