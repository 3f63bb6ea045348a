"""What `import shortlm` gives: names that type checkers see, strings and dictionaries where settings are expected."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import shortlm
from shortlm.errors import OutputError, RecipeError
from shortlm.recipe import settings_of

TEXT = {"text": "embedded", "sequences": 4, "length": 16}


def test_editors_see_what_is_imported_when_it_is_first_used():
    tree = ast.parse(Path(str(shortlm.__file__)).read_text())
    blocks = [n for n in tree.body if isinstance(n, ast.If) and getattr(n.test, "id", "") == "TYPE_CHECKING"]
    seen: dict[str, set[str]] = {}
    for line in blocks[0].body:
        assert isinstance(line, ast.ImportFrom) and all(name.asname == name.name for name in line.names)
        seen[str(line.module)] = {name.name for name in line.names}
    assert seen == {home: {*names} for home, names in shortlm._HOMES.items()}


def test_strings_and_dictionaries_do(tmp_path, llama_folder):
    model = str(llama_folder)
    scores = shortlm.score(model, TEXT, {"criteria": ["bi"], "resamples": 10})
    same = shortlm.score(
        shortlm.ModelSettings(model=model), shortlm.TextSettings(**TEXT),
        shortlm.ScoreSettings(criteria=["bi"], resamples=10),
    )  # fmt: skip
    assert scores.criteria["bi"].scores == same.criteria["bi"].scores
    plan = shortlm.choose(scores, {"blocks": 2, "protect": "none"})
    shortlm.cut(model, [3], out=tmp_path / "a")
    shortlm.cut(llama_folder, plan, {"verify": False}, tmp_path / "b")
    assert shortlm.open_model(tmp_path / "a").facts.n_blocks == 5
    assert shortlm.open_model(str(tmp_path / "b")).facts.n_blocks == 4
    assert shortlm.evaluate(tmp_path / "a", {"texts": [TEXT]}).perplexities[0].tokens_per_sequence == [16] * 4
    assert shortlm.plan_memory(model, TEXT, {"criteria": ["bi"]}, measure=False).rows[0].name == "bi"
    repaired = shortlm.repair(
        tmp_path / "a", model, TEXT | {"sequences": 40}, {"method": "scale", "calibration": 8, "validation": 4},
        tmp_path / "c", always=True,
    )  # fmt: skip
    assert repaired.repair


def test_mistakes_name_the_setting():
    with pytest.raises(RecipeError, match=r"ScoreSettings: criterai: unknown setting; did you mean 'criteria'\?"):
        shortlm.score("embedded", TEXT, {"criterai": ["bi"]})
    with pytest.raises(RecipeError, match="ModelSettings: settings, a dictionary of them or a name is needed"):
        settings_of(shortlm.ModelSettings, 3)  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="CutSettings: settings or a dictionary of them is needed"):
        settings_of(shortlm.CutSettings, "plain")
    with pytest.raises(OutputError, match="out: give the folder of the result"):
        shortlm.cut("embedded", [3])
