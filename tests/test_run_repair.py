"""Repair inside other verbs: the stage of `run`, `cut --repair`, the choice after a repair, its plan and its memory."""

from __future__ import annotations

import importlib
import json

import pytest
from architectures import save_tiny
from processes import ended, run as run_by_command, started
from typer.testing import CliRunner

from shortlm import CutSettings, ModelSettings, RepairSettings, TextSettings, cut, repair
from shortlm.artifacts import CutPlan, Manifest, Measurement
from shortlm.cli import app
from shortlm.cut.unwritten import unwritten_cut
from shortlm.errors import ModelError, OutputError, RecipeError, RepairError, TextError
from shortlm.model import open_files
from shortlm.recipe import Recipe
from shortlm.repair import check_repair, losses_after_repair, plan_repair, sources_of
from shortlm.run import run
from shortlm.run.stages import stage_keys
from shortlm.units import Unit

PHASE = {"method": "cpt", "data": ["embedded"], "separator": "\n\n", "length": 24, "batch": 4, "held_out": 4,
         "steps": 2, "lr": 1e-3, "precision": "float32"}  # fmt: skip
REPAIR = {"calibration": 40, "validation": 8, "method": "refit:attention=false"}
TEXT = TextSettings(text="embedded", length=32)


def recipe(**settings) -> Recipe:
    values = {
        "text": {"text": "embedded", "sequences": 4, "length": 32}, "score": {"criteria": ["bi"], "resamples": 0},
        "choose": {"blocks": 3, "method": "one-shot"}, "eval": {"held_out": 6, "new_tokens": 4},
        "model": {"device": "cpu"}, "repair": REPAIR,
    }  # fmt: skip
    return Recipe.model_validate(values | settings)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    said = []
    page = run(recipe(), tmp_path_factory.mktemp("repaired") / "run", say=said.append)
    return page.parent, said


def test_a_run_repairs(done):
    out, said = done
    assert [line.split()[0] for line in said] == ["score", "choose", "cut", "repair", *["evaluate"] * 3, "report"]
    step = Manifest.load(out / "model" / "manifest.json").repair
    assert step and step.method == REPAIR["method"] and [s.kind for s in Manifest.load(
        out / "model" / "manifest.json").steps] == ["cut", "repair"]  # fmt: skip
    assert Measurement.load(out / "eval-repaired.json").role == "repaired"
    assert Measurement.load(out / "eval-cut.json").role == "cut"
    assert step.delivered == (step.loss.repaired <= step.loss.cut)


def test_it_is_kept_and_redone_alone(done):
    out, _ = done
    again = []
    run(recipe(), out, say=again.append)
    assert all(" kept " in line for line in again[:-1])
    other = recipe(repair=REPAIR | {"calibration": 42})
    with pytest.raises(
        OutputError, match=r"model: was made with other settings or inputs \(repair\.calibration: 40, now 42"
    ):
        run(other, out)
    redone = []
    run(other, out, force=True, say=redone.append)
    made = [line.split("/")[0].strip() for line in redone if " kept " not in line]
    assert made == ["repair", "evaluate repaired", "report"]


def test_windows_of_a_repair_are_nobody_elses():
    settings = recipe(text={"text": "embedded", "sequences": 7, "skip": 3}, search={"held_out": 5, "confirm": 2})
    assert settings.repair_text.skip == 3 + 7 + 6 + 2
    with pytest.raises(RecipeError, match="nothing is left to repair by; give --sequences"):
        run(recipe(text={"text": "embedded", "sequences": 0}, eval={"texts": [{"text": "embedded"}]}), "nowhere")


def test_healing_starts_from_the_repaired_model_in_every_round(tmp_path):
    said: list[str] = []
    settings = recipe(heal={"phases": [PHASE]}, rounds=2, choose={"blocks": 2}, repair=REPAIR | {"method": "linear"})
    run(settings, tmp_path / "run", say=said.append)
    first = ["score", "choose", "cut", "repair", "heal"]
    stages = [line.split()[0] for line in said if not line.startswith("phase")]
    assert stages[:10] == [f"round-1/{name}" for name in first] + first
    step = Manifest.load(tmp_path / "run" / "repair" / "manifest.json").repair
    assert step and len(step.blocks) == 10 and step.against.n_blocks == 12
    healed = Manifest.load(tmp_path / "run" / "model" / "manifest.json")
    assert [s.kind for s in healed.steps] == ["cut", "repair", "cut", "repair"]


def test_cut_repairs_too(tmp_path):
    args = [
        "cut",
        "embedded",
        "--remove",
        "3,4,5",
        "--repair",
        "refit:attention=false",
        "--length",
        "32",
        "--calibration",
        "60",
    ]
    args += ["--validation", "10", "--no-verify", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 0, result.output
    assert "won back" in result.output
    assert [s.kind for s in Manifest.load(tmp_path / "out" / "manifest.json").steps] == ["cut", "repair"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_wrong_method_is_told_before_the_cut(tmp_path):
    result = CliRunner().invoke(
        app, ["cut", "embedded", "--remove", "3", "--repair", "refitt", "--out", str(tmp_path / "out")]
    )
    assert result.exit_code == 2 and "did you mean 'refit'" in result.stderr
    with pytest.raises(RepairError, match="did you mean 'refit'"):
        run(recipe(repair={"method": "refitt"}), tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_sets_are_ranked_as_single_repairs_rank_them(tmp_path):
    """Several cut models beside one dense one, unwritten, come to the losses of each by itself."""
    settings, dense, expected = RepairSettings.model_validate(REPAIR), ModelSettings(device="cpu"), []
    sets = [[Unit(3), Unit(7)], [Unit(0), Unit(11)], [Unit(5), Unit(8, "ffn")]]
    for n, units in enumerate(sets):
        cut(dense, units, CutSettings(verify=False), tmp_path / str(n))
        step = repair(
            ModelSettings(model=str(tmp_path / str(n))), dense, TEXT, settings, tmp_path / f"{n}r", always=True
        ).repair
        assert step is not None
        expected.append(min(step.loss.repaired, step.loss.cut))
    files = open_files(dense)
    found = losses_after_repair([unwritten_cut(files, units) for units in sets], files, TEXT, settings)
    assert found == pytest.approx(expected, abs=1e-5)


def test_auto_takes_the_set_that_is_best_after_repair(tmp_path, monkeypatch):
    args = [
        "choose",
        "-m",
        "embedded",
        "--method",
        "auto",
        "--blocks",
        "1",
        "--sequences",
        "4",
        "--length",
        "24",
        "--held-out",
        "2",
    ]
    args += ["--confirm", "2", "--text", "embedded"]
    after = importlib.import_module("shortlm.run.after_repair").AfterRepair
    monkeypatch.setattr(after, "losses", lambda self, sets: [3.0, 1.0, 2.0])
    chosen = {}
    for name, more in (("without", []), ("with", ["--repair", "auto"])):
        result = CliRunner().invoke(app, [*args, *more, "--out", str(tmp_path / name)], catch_exceptions=False)
        assert result.exit_code == 0
        chosen[name] = CutPlan.load(tmp_path / name)
    assert chosen["with"].removed != chosen["without"].removed
    search = chosen["with"].search
    assert search and search.after_repair and chosen["with"].certain is None
    assert not chosen["without"].search.after_repair and chosen["without"].certain is not None
    assert any("after repair" in note and f"{chosen['with'].removed[0]} 1.0000" in note
                          for note in search.notes)  # fmt: skip


def test_repair_is_for_auto(tmp_path):
    result = CliRunner().invoke(app, ["choose", "--method", "greedy", "--blocks", "1", "--repair", "auto"])
    assert result.exit_code == 2 and "--repair: is for --method auto" in result.stderr


def test_a_plan_tells_memory_and_work(tmp_path):
    cut(ModelSettings(), [3, 4, 5], CutSettings(verify=False), tmp_path / "cut")
    short, dense = ModelSettings(model=str(tmp_path / "cut")), ModelSettings()
    settings = RepairSettings(method="refit:attention=false", calibration=20, validation=10, ridges=[0.1, 0.2])
    row = plan_repair(sources_of(short, dense, TEXT, settings), measure=False).rows[0]
    # dense 12 x 30, cut 9 x (20 + 2 x 10), and for each of 7 weights sums over 20, errors of 3 choices over 10
    calls = 12 * 30 + 9 * 40 + 7 * (20 + 30)
    assert row.block_forwards == pytest.approx(calls / row.batch_size, abs=1)
    assert row.peak_bytes > row.parts["process"] and not row.streamed
    result = CliRunner().invoke(app, ["repair", str(tmp_path / "cut"), "--against", "embedded", "--dry-run"])
    assert result.exit_code == 0 and "forwards" in result.output, result.output
    tight = short.model_copy(update={"memory": "1MiB"})
    with pytest.raises(RepairError, match=r"--memory 1.00 MiB is too little: .* fewer --calibration windows"):
        repair(tight, dense, TEXT, settings, tmp_path / "out")
    result = CliRunner().invoke(app, ["repair", str(tmp_path / "cut"), "--against", "embedded"])
    assert result.exit_code == 2 and "--out: give the folder" in result.stderr


def test_what_fails_later_is_told_before_scoring(tmp_path):
    (tmp_path / "short.txt").write_text("Juna has the lamp. " * 60)
    few = recipe(text={"text": str(tmp_path / "short.txt"), "sequences": 4, "length": 32},
                 eval={"held_out": 2, "new_tokens": 0}, search={"held_out": 0, "confirm": 0})  # fmt: skip
    said: list[str] = []
    with pytest.raises(TextError, match=r"windows of 32, and .* are needed; give more text"):
        run(few, tmp_path / "run", say=said.append)
    assert not said
    save_tiny("mixtral", tmp_path / "experts")
    with pytest.raises(ModelError, match="can't be repaired or narrowed yet"):
        check_repair(ModelSettings(model=str(tmp_path / "experts")), ids_of(tmp_path), RepairSettings(**REPAIR))


def ids_of(folder) -> TextSettings:
    (folder / "ids.json").write_text(json.dumps([[3, 4, 5, 6]] * 48))
    return TextSettings(ids=str(folder / "ids.json"))


def test_a_plan_is_for_the_windows_that_are_given(tmp_path):
    """Token ids have a length of their own, whatever --length says."""
    cut(ModelSettings(), [3, 4, 5], CutSettings(verify=False), tmp_path / "cut")
    (tmp_path / "ids.json").write_text(json.dumps([[3] * 200] * 48))
    short, dense = ModelSettings(model=str(tmp_path / "cut")), ModelSettings()
    estimate = plan_repair(
        sources_of(short, dense, TextSettings(ids=str(tmp_path / "ids.json")), RepairSettings(**REPAIR)), measure=False
    )
    assert (estimate.sequences, estimate.tokens) == (48, 200)


def test_options_of_a_repair_need_one(tmp_path):
    result = CliRunner().invoke(
        app, ["cut", "embedded", "--remove", "3", "--calibration", "9", "--out", str(tmp_path / "out")]
    )
    assert result.exit_code == 2 and "are for --repair METHOD" in result.stderr and not (tmp_path / "out").exists()


def test_only_auto_chooses_anew_for_another_repair():
    keys = {
        (method, calibration): stage_keys(
            recipe(choose={"blocks": 3, "method": method}, repair=REPAIR | {"calibration": calibration}), None
        )["choose"]
        for method in ("auto", "greedy", "one-shot")
        for calibration in (40, 50)
    }
    assert keys["auto", 40] != keys["auto", 50]
    assert keys["greedy", 40] == keys["greedy", 50] and keys["one-shot", 40] == keys["one-shot", 50]


def test_two_processes_repair_in_a_run(tmp_path):
    args = ["run", "--text", "embedded", "--sequences", 4, "--length", 32, "--blocks", 3, "--criteria", "bi"]
    args += ["--repair", "refit:attention=false", "--bench", "none", "--held-out", 4, "--new-tokens", 4]
    done = ended(started(run_by_command(*args, "--out", tmp_path / "run"), 2))
    assert [code for code, _, _ in done] == [0, 0], done
    step = Manifest.load(tmp_path / "run" / "model" / "manifest.json").repair
    assert step and step.delivered == (step.loss.repaired <= step.loss.cut)
    assert Measurement.load(tmp_path / "run" / "eval-repaired.json").role == "repaired"
