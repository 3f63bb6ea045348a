"""Settings that have another name now: the old one still works in recipes, on the command line and in Python."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from shortlm.artifacts import Manifest
from shortlm.cli import app
from shortlm.errors import RecipeError
from shortlm.recipe import CutSettings, Recipe, load_recipe, to_yaml, validated


def test_an_old_key_of_a_recipe(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("cut:\n  prove: false\n  shard_size: 1GB\n", encoding="utf-8")
    recipe = load_recipe(path)
    assert recipe.cut == CutSettings(verify=False, shard_size="1GB")
    assert "verify: false" in to_yaml(recipe) and "prove" not in to_yaml(recipe)
    assert validated(CutSettings, {"prove": False}) == CutSettings(verify=False) != Recipe().cut


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        ("{prove: false, verify: false}", "cut: 'prove' is the old name of 'verify'; give one of them"),
        ("{prove: perhaps}", "cut.verify: input should be a valid boolean"),
        ("{proof: false}", "cut.proof: unknown setting; "),
    ],
)
def test_what_an_old_key_can_not_be(tmp_path, cut, message):
    path = tmp_path / "r.yaml"
    path.write_text(f"cut: {cut}\n", encoding="utf-8")
    with pytest.raises(RecipeError) as error:
        load_recipe(path)
    assert str(error.value).startswith(f"{path}: {message}")


@pytest.mark.parametrize(("option", "checked"), [
    ("--no-prove", False), ("--no-verify", False), ("--prove", True), ("--verify", True),
])  # fmt: skip
def test_both_options_of_the_command_line(llama_folder, tmp_path, option, checked):
    command = ["cut", "-m", str(llama_folder), "--remove", "2", option, "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert (Manifest.load(tmp_path / "out" / "manifest.json").equivalence is not None) is checked


def test_an_old_key_under_a_new_option(tmp_path):
    """The command line is laid over the recipe whatever name the recipe has it by."""
    path = tmp_path / "r.yaml"
    path.write_text("cut: {prove: true}\nmodel: {model: nowhere}\n", encoding="utf-8")
    done = CliRunner().invoke(app, ["run", str(path), "--no-verify", "-o", str(tmp_path / "out")])
    assert done.exit_code == 2 and "nowhere: no such folder" in done.output
