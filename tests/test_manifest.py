"""The manifest: steps from the first model to this one; older forms are read; what doesn't fit is refused."""

from __future__ import annotations

import copy
import json

import pytest
from old_manifests import CUT_ONCE, CUT_TWICE, FACTS, ORIGIN, PLAN

from shortlm.artifacts import CutStep, Manifest, blocks_after, load_plan, manifest_of
from shortlm.cut import cut
from shortlm.errors import ShortLMError
from shortlm.recipe import CutSettings, ModelSettings


def loaded(folder, content) -> Manifest:
    (folder / "manifest.json").write_text(json.dumps(content), encoding="utf-8")
    found = manifest_of(folder)
    assert found is not None
    return found


def step(removed: list[int], n_blocks: int, **more) -> dict:
    facts = FACTS | {"n_blocks": n_blocks, "block_parameters": [100] * n_blocks}
    plan = PLAN | {"model": facts, "removed": removed, "scores": None, "protected": []}
    return {"kind": "cut", "plan": plan, "bytes_before": 9, "bytes_after": 5, "provenance": ORIGIN} | more


def steps(*made: dict) -> dict:
    return {"kind": "Manifest", "base": FACTS, "steps": list(made)}


# --- files from before there were steps


def test_a_manifest_of_one_cut_is_read_as_one_step(tmp_path):
    found = loaded(tmp_path, CUT_ONCE)
    assert [s.kind for s in found.steps] == ["cut"]
    assert found.base.name == "m" and found.base_path == "/models/m"
    assert found.blocks == [0, 2, 3, 5] and found.steps[0].blocks is None  # which follow from the plan
    assert found.plan.removed == [1, 4] and found.plan.criterion == "ppl"
    assert (found.bytes_before, found.bytes_after, found.provenance.key) == (3600, 2800, "0123456789abcdef")
    assert found.equivalence and found.equivalence.max_abs_difference == 2e-6
    assert load_plan(tmp_path).removed == [1, 4]
    assert found.provenance.key == "0123456789abcdef"


def test_a_manifest_of_a_second_cut_keeps_the_blocks_that_do_not_follow(tmp_path):
    found = loaded(tmp_path, CUT_TWICE)
    assert found.blocks == found.steps[0].blocks == [0, 3, 5]
    assert found.base.name == "first" and found.plan.removed == [1] and found.equivalence is None
    again = found.followed_by(CutStep.model_validate(step([0], 3)))
    assert again.blocks == [3, 5] and again.base_path == "/models/first"


@pytest.mark.parametrize("old", [CUT_ONCE, CUT_TWICE])
def test_what_was_read_is_written_in_the_new_form(tmp_path, old):
    found = loaded(tmp_path, old)
    found.save(tmp_path / "new.json")
    assert Manifest.load(tmp_path / "new.json") == found
    written = json.loads((tmp_path / "new.json").read_bytes())
    assert written.keys() == {"kind", "base", "base_path", "steps"} and "proof" not in written["steps"][0]


def test_the_first_versions_had_no_base_path_and_no_cached_tolerance(tmp_path):
    old = copy.deepcopy(CUT_ONCE)
    del old["base_path"], old["proof"]["tolerance_cached"], old["proof"]["streamed"]
    found = loaded(tmp_path, old)
    assert found.base_path is None and found.equivalence and found.equivalence.tolerance_cached is None


# --- steps


def test_a_cut_of_a_cut_appends_a_step(llama_folder, tmp_path):
    settings = CutSettings(verify=False)
    first = cut(ModelSettings(model=str(llama_folder)), [1, 4], settings, tmp_path / "first")  # 0, 2, 3, 5 stay
    second = cut(ModelSettings(model=str(tmp_path / "first")), [1], settings, tmp_path / "second")
    third = cut(ModelSettings(model=str(tmp_path / "second")), [0], CutSettings(), tmp_path / "third")
    assert third == Manifest.load(tmp_path / "third" / "manifest.json")
    assert [s.plan.removed for s in third.steps] == [[1, 4], [1], [0]]
    assert (first.blocks, second.blocks, third.blocks) == ([0, 2, 3, 5], [0, 3, 5], [3, 5])
    assert third.steps[:2] == second.steps and third.base == first.base
    assert third.base_path == str(llama_folder) and third.plan.model.name == str(tmp_path / "second")
    assert third.bytes_before == second.bytes_after < first.bytes_after < first.bytes_before
    assert first.equivalence is None and third.equivalence and third.equivalence.max_abs_difference <= 1e-4


def test_a_cut_goes_on_from_an_old_manifest(llama_copy, tmp_path):
    cut(ModelSettings(model=str(llama_copy)), [1, 4], CutSettings(verify=False), tmp_path / "first")
    loaded(tmp_path / "first", CUT_ONCE)
    found = cut(ModelSettings(model=str(tmp_path / "first")), [1], CutSettings(verify=False), tmp_path / "second")
    assert found.blocks == [0, 3, 5] and len(found.steps) == 2 and found.base_path == "/models/m"


def test_blocks_follow_the_steps():
    found = Manifest.model_validate(steps(step([0, 5], 6), step([1], 4), step([2], 3)))
    assert found.blocks == [1, 3] == blocks_after(found.steps, 6)
    assert found.plan.removed == [2]


REFUSED = {
    "another kind": (
        steps(step([1], 6, kind="melt")),
        "steps.0: Input tag 'melt' found using 'kind' does not match any of the expected tags: 'cut', 'repair'",
    ),
    "no step": (steps(), "steps: List should have at least 1 item"),
    "too many steps": (steps(*[step([1], 6)] * 1001), "steps: List should have at most 1000 items"),
    "unknown key": (steps(step([1], 6)) | {"more": 1}, "more: Extra inputs are not permitted"),
    "unknown key in a step": (steps(step([1], 6, proof=None)), "steps.0.cut.proof: Extra inputs are not permitted"),
    "unknown key, old": (CUT_ONCE | {"more": 1}, "more: Extra inputs are not permitted"),
    "both forms": (CUT_ONCE | steps(step([1], 6)), "Extra inputs are not permitted"),
    "steps of two models": (steps(step([1], 6), step([1], 6)), "a plan for 6 blocks, where 5 were left"),
    "base of another size": (steps(step([1], 5)), "a plan for 5 blocks, where 6 were left"),
    "blocks and plan, old": (CUT_ONCE | {"blocks": [0, 2]}, "2 blocks, the plan leaves 4"),
    "blocks out of order, old": (CUT_ONCE | {"blocks": [0, 3, 2, 5]}, "blocks must be different indices in order"),
    "no blocks, old": (CUT_ONCE | {"blocks": []}, "blocks: List should have at least 1 item"),
    "no plan, old": (CUT_ONCE | {"plan": None}, "is not a Manifest file"),
    "a plan of text, old": (CUT_ONCE | {"plan": "x"}, "is not a Manifest file"),
    "negative size, old": (CUT_ONCE | {"bytes_after": -1}, "steps.0.cut.bytes_after: "),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_one_line(tmp_path, name):
    content, message = REFUSED[name]
    with pytest.raises(ShortLMError) as error:
        loaded(tmp_path, content)
    assert message in str(error.value) and len(str(error.value).splitlines()) == 1
    assert str(error.value).startswith(f"{tmp_path / 'manifest.json'}: is not a Manifest file: ")
