"""A text that a model was healed on and is measured on: found by the rule of `run`, and said wherever it is shown."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from made_by_hand import Page, card, measurement, page
from test_markdown import healing

from shortlm.artifacts import Measurement, Perplexity
from shortlm.embedded import model_path
from shortlm.errors import ShortLMError
from shortlm.evaluate import evaluate
from shortlm.evaluate.history import sources_of
from shortlm.recipe import EvalSettings, ModelSettings, SourceSettings, TextSettings, trained_on
from shortlm.report import Evidence, write_markdown
from shortlm.report.headline import headline
from shortlm.run import compare

NOTE = "was healed on embedded, so its perplexity there says nothing about other text"


def text(**given) -> TextSettings:
    return TextSettings(**({"text": "embedded"} | given))


@pytest.mark.parametrize(
    ("measured", "source", "same"),
    [
        (text(seed=2), {"data": "embedded", "seed": 2}, True),
        (text(seed=2, skip=50), {"data": "embedded", "seed": 2}, True),
        (text(seed=0), {"data": "embedded", "seed": 2}, False),
        (text(text="a/b", subset="x", split="test"), {"data": "a/b", "subset": "x", "split": "test"}, True),
        (text(text="a/b", subset="x", split="test"), {"data": "a/b", "subset": "x", "split": "train"}, False),
        (text(text="a/b", split="train"), {"data": "a/c", "split": "train"}, False),
        (text(ids="ids.json", seed=2), {"data": "embedded", "seed": 2}, False),
    ],
)
def test_which_texts_are_the_same(measured, source, same):
    assert trained_on(measured, SourceSettings(**source)) is same


def test_a_file_is_the_same_by_any_spelling(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("x")
    monkeypatch.chdir(tmp_path)
    assert trained_on(text(text="a.txt"), SourceSettings(data=str(tmp_path / "a.txt"), split="other"))
    assert trained_on(text(text="./a.txt", split="test"), SourceSettings(data="a.txt"))
    assert not trained_on(text(text="b.txt"), SourceSettings(data="a.txt"))


@pytest.fixture(scope="module")
def healed(tmp_path_factory) -> Path:
    """The embedded model with the history of one that was healed on embedded text of seed 2."""
    folder = Path(shutil.copytree(model_path(), tmp_path_factory.mktemp("healed") / "healed"))
    healing(data=[{"data": "embedded", "seed": 2}]).save(folder / "healing.json")
    return folder


def test_the_measurement_keeps_it(healed):
    texts = [text(seed=2, sequences=3, length=32), text(seed=0, sequences=3, length=32)]
    found = evaluate(ModelSettings(model=str(healed)), EvalSettings(texts=texts, new_tokens=0))
    assert [p.healed_on for p in found.perplexities] == [True, False]
    assert [p.healed_on for p in measurement("dense").perplexities] == [False, False]
    old = measurement("dense").perplexities[0].model_dump()
    del old["healed_on"]
    assert Perplexity.model_validate(old) == measurement("dense").perplexities[0]


def test_a_model_that_was_never_healed_has_no_sources(healed, tmp_path):
    assert [s.seed for s in sources_of(healed)] == [2, 2] and sources_of(model_path()) == []
    (tmp_path / "healing.json").write_text("{}")
    with pytest.raises(ShortLMError, match=r"healing\.json: is not a Healing file"):
        sources_of(tmp_path)


def test_eval_says_it_on_standard_error_and_beside_the_figure(healed, tmp_path):
    from typer.testing import CliRunner

    from shortlm.cli import app

    command = ["eval", "-m", str(healed), "--text", "embedded", "--sequences", "3", "--length", "32", "--samples", "0"]
    result = CliRunner().invoke(app, [*command, "--seed", "2", "-o", str(tmp_path / "e.json")])
    assert f"healed {NOTE}; measure it on text that was held out" in result.stderr
    assert "; healed on this text" in result.stdout
    assert Measurement.load(tmp_path / "e.json").perplexities[0].healed_on
    other = CliRunner().invoke(app, [*command, "--seed", "1"])
    assert other.exit_code == 0 and "healed on" not in other.stdout + other.stderr


def test_compare_says_it_and_so_do_its_pages(healed, tmp_path):
    said, models = [], [ModelSettings(), ModelSettings(model=str(healed))]
    evaluation = EvalSettings(texts=[text(seed=2, sequences=3, length=32)], new_tokens=0)
    out = compare(models, evaluation, None, tmp_path / "c", say=said.append)
    assert any(line.startswith(f"healed {NOTE}") for line in said)
    words = "".join(Page(out.read_text(encoding="utf-8")).words)
    assert f"healed {NOTE}" in words and words.count("(healed on it)") == 1
    markdown = (tmp_path / "c" / "report.md").read_text(encoding="utf-8")
    assert f"Trained on: healed {NOTE}" in markdown and markdown.count("(healed on it) |") == 1
    assert "(which it was healed on)" in said[-1]


def test_the_card_and_the_headline_say_it(tmp_path):
    found = [measurement("dense"), measurement("healed")]
    assert "healed on it" not in page(tmp_path, measurements=found)
    found[1].perplexities[0].healed_on = True
    assert f"Trained on: healed {NOTE}" in card(measured=found)[1]
    assert "on embedded (which it was healed on)." in headline(Evidence(measurements=found))
    write_markdown(tmp_path / "r.md", Evidence("T", measurements=found))
    assert "which it was healed on" in (tmp_path / "r.md").read_text(encoding="utf-8")
    three = [measurement("a"), measurement("b"), found[1]]
    text = headline(Evidence(measurements=three))
    assert "b: perplexity × " in text and text.endswith("healed on).")


def test_a_source_that_is_no_source_is_told(tmp_path):
    healing(data=[{"what": 1}]).save(tmp_path / "healing.json")
    with pytest.raises(ShortLMError, match=r"healing\.json: data: field required"):
        sources_of(tmp_path)
