"""Recipes: each shipped one is parsed; mistakes are told by name."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from shortlm.artifacts import ModelFacts
from shortlm.choose.budget import read_budget
from shortlm.cli import app
from shortlm.errors import RecipeError
from shortlm.recipe import Recipe, TextSettings, load_contest, load_recipe, shipped, to_yaml
from shortlm.recipe.shipped import FOLDER as RECIPES
from shortlm.score import parse
from shortlm.units import protected_blocks

SHIPPED = sorted(p for p in RECIPES.rglob("*.yaml") if p.parent.name not in ("cluster", "contests"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_recipes(path):
    recipe = load_recipe(path)
    assert recipe.name != Recipe().name
    for spec in recipe.score.criteria:
        parse(spec)
    assert recipe.choose.criterion in (None, *recipe.score.criteria)
    facts = ModelFacts(name="m", architecture="llama", n_blocks=40, block_parameters=[10] * 40, parameters=500)
    read_budget(recipe.choose, facts)
    protected_blocks(recipe.choose.protect, 40)
    assert recipe.model.model == "embedded" or recipe.source


def test_there_are_all_published_ones():
    names = " ".join(p.stem for p in SHIPPED)
    for wanted in ("embedded-demo", "llama-1-7b-ppl", "llama-1-7b-taylor", "llama-2-7b", "llama-3-8b", "vicuna-7b",
                   "vicuna-13b", "gemma-2b", "gemma-7b", "shortgpt", "gromov"):  # fmt: skip
        assert wanted in names, wanted


def test_round_trip(tmp_path):
    recipe = load_recipe(SHIPPED[0])
    (tmp_path / "r.yaml").write_text(to_yaml(recipe), encoding="utf-8")
    assert load_recipe(tmp_path / "r.yaml") == recipe


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("txt: {}", "txt: unknown setting; did you mean 'text'?"),
        ("text: {lenght: 5}", "text.lenght: unknown setting; did you mean 'length'?"),
        ("text: {length: x}", "text.length: input should be a valid integer"),
        ("eval: {texts: [{sequence: 1}]}", "eval.texts.0.sequence: unknown setting; did you mean 'sequences'?"),
        ("- a", "holds a list, settings (key: value) are needed"),
        ("a: [", "is not valid YAML"),
        ("score: {criteria: []}", "score.criteria: list should have at least 1 item"),
    ],
)
def test_bad_recipes(tmp_path, content, message):
    path = tmp_path / "r.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(RecipeError) as error:
        load_recipe(path)
    assert str(error.value).startswith(f"{path}: ") and message in str(error.value)


def test_the_text_suits_the_model():
    assert TextSettings().for_model("embedded").text == "embedded"
    assert TextSettings(length=64).for_model("some/model") == TextSettings(
        text="Salesforce/wikitext", subset="wikitext-2-raw-v1", length=64
    )
    assert TextSettings(text="a.txt").for_model("embedded").text == "a.txt"


def test_held_out_text_follows_what_was_scored():
    recipe = Recipe()
    (text,) = recipe.eval_texts()
    assert (text.skip, text.sequences, text.text) == (recipe.text.sequences, recipe.eval.held_out, recipe.text.text)


def test_shipped_recipes_are_found_by_name(tmp_path):
    assert load_recipe("shortened-llama/llama-2-7b-taylor").model.model == "meta-llama/Llama-2-7b-hf"
    assert load_recipe("recipes/embedded-demo.yaml") == load_recipe("embedded-demo")  # as in a checkout of old
    for name, message in (
        ("embeded-demo", "embeded-demo: no such recipe file; did you mean 'embedded-demo'?"),
        ("zzz", "zzz: no such recipe file; 'shortlm recipes' lists those that come with the package"),
    ):
        with pytest.raises(RecipeError, match=re.escape(message)):
            load_recipe(name)
    assert load_recipe("llama-2-7b-taylor") == load_recipe("shortened-llama/llama-2-7b-taylor")
    (tmp_path / "embedded-demo").write_text("name: mine", encoding="utf-8")
    assert load_recipe(tmp_path / "embedded-demo").name == "mine"  # a file comes first


def call(*args, code=0) -> str:
    result = CliRunner().invoke(app, [str(a) for a in args], prog_name="shortlm")
    assert result.exit_code == code, result.output
    return result.output


def test_recipes_are_listed_shown_and_copied(tmp_path):
    listed = call("recipes")
    assert all(name.rpartition("/")[2] in listed for name in shipped()) and "arXiv 2402.02834" in listed
    assert max(map(len, listed.splitlines())) <= 80
    rows = [line.split() for line in listed.splitlines()]
    assert ["evopress-llama-2-7b", "meta-llama/Llama-2-7b-hf", "evolutionary"] in rows
    assert ["embedded", "embedded", "compare,", "11", "ways"] in rows
    assert ["embedded-heal", "embedded", "ppl", "+", "heal"] in rows
    assert ["cpt-4-nodes", "heal", "--recipe,", "cpt"] in rows
    assert call("recipes", "show", "embedded-demo").strip() == shipped()["embedded-demo"].read_text().strip()
    call("recipes", "copy", "cluster", tmp_path)
    assert {path.name for path in (tmp_path / "cluster").iterdir()} == {p.name for p in (RECIPES / "cluster").iterdir()}
    call("recipes", "copy", "contests/embedded", tmp_path)
    assert load_contest(tmp_path / "embedded.yaml") == load_contest("contests/embedded")
    assert "the output file exists" in call("recipes", "copy", "contests/embedded", tmp_path, code=2)
    assert "did you mean 'contests/embedded'?" in call("recipes", "show", "contests/embeded", code=2)
