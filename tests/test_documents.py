"""JSON and YAML within bounds; paths, sizes and counts that can't be meant."""

from __future__ import annotations

import json
import math
import sys

import pytest

from shortlm import documents, keys
from shortlm.artifacts import BlockScores, CutStep, Perplexity, load_plan
from shortlm.documents import parse_json, parse_yaml
from shortlm.errors import PlanError, RecipeError, ShortLMError, shown
from shortlm.keys import fingerprint, measured_from
from shortlm.paths import user_path
from shortlm.recipe import EvalSettings, Recipe, ScoreSettings, TextSettings, validated
from shortlm.sizes import byte_size, quantity


def test_json_with_more_values_than_bytes_tell(monkeypatch):
    monkeypatch.setattr(documents, "MOST_CONTAINERS", 3)
    assert parse_json("[[], {}]", "x", ShortLMError) == [[], {}]
    for raw in ("[[], [], []]", b"[[], [], []]"):
        with pytest.raises(ShortLMError, match="x: holds more than 20,000,000 values or 3 lists"):
            parse_json(raw, "x", ShortLMError)


def test_keys_that_stand_twice():
    assert parse_json('{"a": 1, "a": 2}', "x", ShortLMError) == {"a": 2}
    with pytest.raises(ShortLMError, match=r"x: is not valid JSON \('a' stands there twice\)"):
        parse_json('{"b": 1, "a": 1, "a": 2}', "x", ShortLMError, unique=True)


@pytest.mark.parametrize("name", ["a" * 5000, "/".join(["a" * 200] * 30), "ü" * 200])
def test_names_too_long_for_any_system(name):
    with pytest.raises(ShortLMError, match=r"can't be a path \([0-9,]+ characters\); give a shorter one"):
        user_path(name)


@pytest.mark.parametrize("text", ["9" * 400, "9" * 400 + "GB", "8EB", "9223372036854775808", "0.1", "inf", "nan", "-0"])
def test_sizes_that_are_none(text):
    with pytest.raises(ValueError, match="a size is needed"):
        byte_size(text)


@pytest.mark.parametrize("text", ["9" * 400, "9" * 400 + "B", "9999999999T", "inf", "0"])
def test_counts_that_are_none(text):
    with pytest.raises(ValueError, match="a number is needed"):
        quantity(text)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (TextSettings, {"sequences": 10_000_001}),
        (TextSettings, {"skip": 10_000_001}),
        (TextSettings, {"length": 10_000_001}),
        (TextSettings, {"separator": "x" * 1001}),
        (ScoreSettings, {"resamples": 10_001}),
        (ScoreSettings, {"batch_size": 1_000_001}),
        (ScoreSettings, {"select": "9" * 5000}),
        (ScoreSettings, {"criteria": ["ppl"] * 101}),
        (Recipe, {"rounds": 1001}),
    ],
)
def test_numbers_that_no_honest_use_exceeds(kind, values):
    with pytest.raises(RecipeError) as error:
        validated(kind, values)
    assert str(error.value).startswith(f"--{next(iter(values)).replace('_', '-')}: ") and len(str(error.value)) < 400


@pytest.mark.parametrize("text", ["name: \x01", "name: \0"])
def test_yaml_with_characters_that_yaml_does_not_have(text):
    with pytest.raises(RecipeError, match=r"r\.yaml: is not valid YAML"):
        parse_yaml(text, "r.yaml", RecipeError)


def test_a_number_that_python_does_not_write_out():
    assert shown(16**5000) == "a number of thousands of digits"
    assert shown([16**5000]) == "a number of thousands of digits"


def test_a_key_that_is_too_long_to_show():
    with pytest.raises(RecipeError) as error:
        validated(Recipe, {"x" * 100_000: 1}, "r.yaml")
    assert len(str(error.value)) < 400


def test_a_folder_of_tasks_that_is_the_whole_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(keys, "MOST_FILES", 2)
    for name in "abc":
        (tmp_path / name).touch()
    with pytest.raises(ShortLMError, match="holds more than 2 files; give a folder of task files alone"):
        measured_from(EvalSettings(task_path=[str(tmp_path)]))
    assert fingerprint(str(tmp_path))[0] == str(tmp_path)


def changed(artifact, *path, to):
    """The artifact as a dictionary with one value replaced."""
    values = artifact.model_dump(mode="json")
    inner = values
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = to
    return values


@pytest.mark.parametrize(
    ("path", "to", "message"),
    [
        (["model", "n_blocks"], 10**9, "less than or equal to 10000"),
        (["model", "n_blocks"], 0, "greater than or equal to 1"),
        (["model", "parameters"], 0, "greater than or equal to 1"),
        (["model", "parameters"], 5, "a block of 147712 parameters in a model of 5"),
        (["model", "parameters"], 10**30, "less than or equal to"),
        (["base_perplexity"], 0, "greater than 0"),
        (["criteria", "angular", "table"], [[0.1]], "table must have 12 rows of 12, 11, ... 1 runs"),
        (["criteria", "ppl", "scores", 3], float("nan"), "'ppl' has a score that is NaN or infinite"),
        (["criteria", "ppl", "stderr", 3], -1.0, "'ppl' has a negative standard error"),
        (["criteria", "ppl", "stderr"], [1.0], "stderr must have a value per block"),
        (["criteria", "ppl", "per_sequence"], [[1.0]] * 12, "a column per weight"),
    ],
)
def test_scores_that_cannot_be(path, to, message):
    from made_by_hand import block_scores

    with pytest.raises(ValueError, match=message):
        BlockScores.model_validate(changed(block_scores(), *path, to=to))


@pytest.mark.parametrize(
    ("path", "to", "where"),
    [
        (["base_perplexity"], math.inf, "base_perplexity"),
        (["provenance", "seconds"], math.inf, "provenance.seconds"),
        (["criteria", "angular", "table", 3, 3], 1e101, "criteria.angular.table.3.3"),
        (["criteria", "ppl", "options"], {"first_start": 10**400}, "criteria.ppl.options.first_start"),
        (["criteria", "ppl", "scores", 3], sys.float_info.max, None),  # as one published score is
    ],
)
def test_numbers_that_no_sum_can_take(tmp_path, path, to, where):
    from made_by_hand import block_scores

    (tmp_path / "s.json").write_text(json.dumps(changed(block_scores(), *path, to=to)))
    if where is None:
        BlockScores.load(tmp_path / "s.json")
        return
    with pytest.raises(ShortLMError, match=f"is not a BlockScores file: {where}: is NaN, infinite or too large"):
        BlockScores.load(tmp_path / "s.json")


def test_weights_must_sum_to_something():
    from made_by_hand import block_scores

    scores = changed(block_scores(), "criteria", "ppl", "per_sequence", to=[[1.0, 2.0]] * 12)
    scores["criteria"]["ppl"]["weights"] = [0.0, 0.0]
    with pytest.raises(ValueError, match="'ppl' has weights that don't sum to more than 0"):
        BlockScores.model_validate(scores)
    scores["criteria"]["ppl"]["weights"] = [0.5, 0.5]
    BlockScores.model_validate(scores)


def test_manifests_and_perplexities_that_cannot_be():
    from made_by_hand import manifest, perplexity

    step = manifest().steps[0]
    with pytest.raises(ValueError, match="blocks must be different indices in order"):
        CutStep.model_validate(changed(step, "blocks", to=[1] * 8))
    with pytest.raises(ValueError, match="removed must leave a block"):
        CutStep.model_validate(changed(step, "plan", "removed", to=list(range(12))))
    with pytest.raises(ValueError, match="must be of one length"):
        Perplexity.model_validate(changed(perplexity("x", 1.0, 1), "tokens_per_sequence", to=[128]))


def test_blocks_by_the_million():
    from shortlm.units import check_blocks, unit_list

    for text in (",".join(["0-9999"] * 1000), ",".join(["1"] * 1_000_000)):
        with pytest.raises(PlanError, match="--remove: names more than 30,000 units; give each once"):
            unit_list(text, "--remove")
    with pytest.raises(PlanError) as error:
        unit_list("9" * 5000, "--remove")
    assert "is no block index" in str(error.value) and len(str(error.value)) < 300
    assert check_blocks(list(range(9999)), 10_000) == list(range(9999))


def test_a_plan_is_told_by_its_beginning(tmp_path):
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(2**40)  # without taking any place on disk
    with pytest.raises(ShortLMError, match="has 1,099,511,627,776 bytes, at most 134,217,728 are read"):
        load_plan(tmp_path / "huge.json")


def test_resamples_are_the_same_however_many_are_drawn_at_once(monkeypatch):
    import torch

    from shortlm import statistics

    values_LS, weights_S = torch.rand(3, 50, dtype=torch.float64), torch.full((50,), 0.02, dtype=torch.float64)
    whole = statistics.resampled(values_LS, weights_S, 64, seed=1)
    for at_once in (1, 170, 1000):
        monkeypatch.setattr(statistics, "AT_ONCE", at_once)
        torch.testing.assert_close(statistics.resampled(values_LS, weights_S, 64, seed=1), whole)
    assert statistics.resampled(values_LS, weights_S, 0, seed=1).shape == (0, 3)
