"""The folder of `run` and `compare`: what is kept, what is refused and why, who writes."""

from __future__ import annotations

import pytest
from made_by_hand import block_scores, measurement

from shortlm import keys
from shortlm.artifacts import BlockScores, Measurement
from shortlm.errors import ModelError, OutputError
from shortlm.keys import counted_versions, model_key
from shortlm.recipe import BenchSettings, Recipe
from shortlm.run import stages
from shortlm.run.changes import version_change, why_other
from shortlm.run.folder import Mark, Output, RunFolder
from shortlm.run.stages import run_folder, stage_keys

MARK = Mark("marked.yaml", "# ours\n", "work", 8)


def folder(path, key="1", force=False, say=lambda line: None, why=lambda artifact: "other hands") -> RunFolder:
    outputs = {"score": Output(path / "s.json", BlockScores, key), "eval": Output(path / "e.json", Measurement, key)}
    return RunFolder(path, MARK, "a: 1\n", outputs, why, force, say)


def test_what_has_its_key_is_kept_and_the_rest_is_made(tmp_path):
    said = []
    first = folder(tmp_path / "w", say=said.append)
    first.claim()
    first.do("score", block_scores)
    assert first.made_any and (tmp_path / "w" / "marked.yaml").read_text() == "# ours\na: 1\n"
    again = folder(tmp_path / "w", say=said.append)
    again.claim()
    assert again.do("score", lambda: pytest.fail("made again")).provenance.key == "1" and not again.made_any
    again.do("eval", lambda: measurement("cut"))
    at = tmp_path / "w"
    assert said == [f"score    {at / 's.json'} (12.3 s)", f"score    kept {at / 's.json'}",
                    f"eval     {at / 'e.json'} (12.3 s)"]  # fmt: skip


def test_what_has_another_key_is_refused_by_its_reason_or_redone(tmp_path):
    folder(tmp_path).claim()
    folder(tmp_path).do("score", block_scores)
    with pytest.raises(OutputError) as error:
        folder(tmp_path, key="2").claim()
    way_out = "give --force to redo what differs, or another --out"
    assert str(error.value) == f"{tmp_path / 's.json'}: was made with other hands; {way_out}"
    forced = folder(tmp_path, key="2", force=True)
    forced.claim()
    assert forced.do("score", block_scores).provenance.key == "2"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b'{"kind": "BlockScores", "mod', "is not a BlockScores file: the file: Invalid JSON"),
        (b"", "is not a BlockScores file: "),
        (b"\xff\x00", "is not a BlockScores file: "),
        (b'{"kind": "CutPlan"}', "is not a BlockScores file: "),
    ],
)
def test_what_can_not_be_read_is_said_to_be_unreadable(tmp_path, content, why):
    folder(tmp_path).claim()
    (tmp_path / "s.json").write_bytes(content)
    with pytest.raises(OutputError) as error:
        folder(tmp_path).claim()
    assert str(error.value).startswith(f"{tmp_path / 's.json'}: can't be read ({why}")
    assert str(error.value).endswith(
        f"; delete {tmp_path / 's.json'} or give --force to make it anew, or choose another --out"
    )
    forced = folder(tmp_path, force=True)
    forced.claim()
    forced.do("score", block_scores)
    assert BlockScores.load(tmp_path / "s.json").provenance.key == "1"


def test_a_model_that_can_not_is_left_out_and_said(tmp_path):
    said = []

    def too_large():
        raise ModelError("embedded: too large")

    assert folder(tmp_path, say=said.append).do_if_possible("eval", too_large) is None
    assert said == ["eval     left out: embedded: too large"]


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    other = folder(tmp_path)
    assert other.do("eval", lambda: pytest.fail("made")) is None
    assert other.do("score", block_scores, shared=True) == block_scores()
    assert list(tmp_path.iterdir()) == []


# --- keys


def changed_to(monkeypatch, **versions: str) -> None:
    real = keys.installed_version
    monkeypatch.setattr(keys, "installed_version", lambda name: versions.get(name) or real(name))


@pytest.mark.parametrize("package", ["shortlm", "torch", "transformers"])
def test_another_version_of_what_computes_gives_other_keys(monkeypatch, package):
    recipe = Recipe(bench=BenchSettings(), rounds=2)
    before = stage_keys(recipe, None)
    changed_to(monkeypatch, **{package: "99.0"})
    after = stage_keys(recipe, None)
    assert before.keys() == after.keys() and not set(before.values()) & set(after.values())


def test_another_version_of_anything_else_does_not(monkeypatch):
    before = stage_keys(Recipe(), None)
    changed_to(monkeypatch, numpy="99.0", tokenizers="99.0", datasets="99.0", python="9")
    assert stage_keys(Recipe(), None) == before


def test_a_commit_on_the_hub_counts_whatever_it_was_asked_by():
    model = Recipe().model.model_copy(update={"model": "acme/tiny"})
    named = model.model_copy(update={"revision": "c0ffee"})
    assert model_key(model, "c0ffee") == model_key(named, "c0ffee") != model_key(model, "dec0de")


def test_the_reason_is_the_version_then_the_commit_then_the_setting(monkeypatch):
    scores = block_scores("acme/tiny")
    scores.provenance.versions = counted_versions() | {"numpy": "0.1"}
    scores.model.revision = "c0ffee"
    setting = "choose.drop: 25%, now 50%"
    assert why_other(scores, {}, None) == "other settings or inputs (inputs changed)"
    assert why_other(scores, {"acme/tiny": "c0ffee"}, setting) == f"other settings or inputs ({setting})"
    assert why_other(scores, {"acme/tiny": "dec0de"}, setting) == "acme/tiny at commit c0ffee, now dec0de"
    scores.provenance.versions["transformers"] = "5.0.1"
    now = counted_versions()["transformers"]
    assert why_other(scores, {"acme/tiny": "dec0de"}, setting) == f"transformers 5.0.1, now {now}"
    changed_to(monkeypatch, torch="99.0")
    torch = scores.provenance.versions["torch"]
    both = f"torch {torch}, now 99.0, and transformers 5.0.1, now {now}"
    assert version_change(scores.provenance.versions) == both
    assert version_change({}) is None  # an artifact made by hand


def test_a_run_tells_an_upgrade_and_a_branch_that_moved(tmp_path, monkeypatch):
    recipe = Recipe.model_validate({"model": {"model": "acme/tiny"}})
    at = {"commit": "c0ffee"}
    monkeypatch.setattr(stages, "locate", lambda name, revision, weights: (tmp_path, at["commit"]))

    def made() -> BlockScores:
        scores = block_scores("acme/tiny")
        scores.model.revision = at["commit"]
        scores.provenance.versions = counted_versions()
        return scores

    def started() -> RunFolder:
        found = run_folder(recipe, tmp_path / "run", False, lambda line: None)
        found.claim()
        return found

    started().do("score", made)
    started()
    with monkeypatch.context() as patch:
        changed_to(patch, transformers="99.0")
        with pytest.raises(OutputError, match=r"scores\.json: was made with transformers \d.*, now 99\.0; give --fo"):
            started()
    at["commit"] = "dec0de"
    with pytest.raises(OutputError, match=r"scores\.json: was made with acme/tiny at commit c0ffee, now dec0de; give"):
        started()


def test_a_title_is_no_reason(tmp_path):
    """It is in no key, so where it differs too, something else is the reason."""
    start = run_folder(Recipe(name="first"), tmp_path, False, lambda line: None)
    start.claim()
    scores = block_scores()
    scores.provenance.key, scores.provenance.versions = "of another input", counted_versions()
    scores.save(tmp_path / "scores.json")
    with pytest.raises(OutputError, match=r"scores\.json: was made with other settings or inputs \(inputs changed\)"):
        run_folder(Recipe(name="again"), tmp_path, False, lambda line: None).claim()
