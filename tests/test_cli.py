"""The commands as a user types them: outputs, exit codes, one-line errors."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from architectures import save_tiny
from typer.testing import CliRunner

from shortlm.artifacts import BlockScores, CutPlan, Manifest, Measurement
from shortlm.cli import app
from shortlm.errors import OutputError
from shortlm.model import quiet
from shortlm.progress import ask_to_stop, track, unraisable
from shortlm.run import rounds

FAST = ["--text", "embedded", "--sequences", "4", "--length", "32"]
QUICK_RUN = [
    *FAST,
    "--criteria",
    "bi,magnitude",
    "--blocks",
    "1",
    "--protect",
    "ends",
    "--held-out",
    "4",
    "--new-tokens",
    "4",
    "--bench",
    "none",
]


def shortlm(*args: object):
    return CliRunner().invoke(app, [str(a) for a in args], prog_name="shortlm")


def done(*args: object) -> str:
    result = shortlm(*args)
    assert result.exit_code == 0, result.output
    return result.stdout


def failed(*args: object) -> str:
    """The one line on standard error of a command that failed with exit code 2."""
    result = shortlm(*args)
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("shortlm: "), result.stderr
    return lines[0]


def test_stage_by_stage(llama_folder, tmp_path):
    model = ["--model", llama_folder]
    scores, plan, out = tmp_path / "scores.json", tmp_path / "plan.json", tmp_path / "cut"
    assert "rank agreement" in done(
        "score", *model, *FAST, "-c", "ppl,taylor,bi:shortgpt,magnitude:p=2,weights=mean", "-o", scores
    )
    assert list(BlockScores.load(scores).criteria) == ["ppl", "taylor", "bi:shortgpt", "magnitude:p=2,weights=mean"]
    text = done("choose", scores, "--criterion", "bi:shortgpt", "--blocks", 2, "--protect", "none", "-o", plan)
    assert "remove 2 of 6 blocks" in text
    assert "equivalence check (float32): logits differ by at most" in done("cut", *model, "--plan", plan, "-o", out)
    assert Manifest.load(out / "manifest.json").plan.removed == CutPlan.load(plan).removed
    dense, shorter = tmp_path / "dense.json", tmp_path / "shorter.json"
    assert "perplexity" in done("eval", *model, *FAST, "-o", dense)
    done("eval", "-m", out, *FAST, "-o", shorter)
    assert Measurement.load(shorter).model.n_blocks == 4
    page = tmp_path / "page.html"
    done(
        "report",
        "--scores",
        scores,
        "--plan",
        plan,
        "--manifest",
        out / "manifest.json",
        "--eval",
        dense,
        "--eval",
        shorter,
        "-o",
        page,
    )
    assert "<svg" in page.read_text(encoding="utf-8")
    done("cut", *model, "--plan", out / "manifest.json", "-o", tmp_path / "again")
    done("cut", *model, "--remove", "1,-2", "-o", tmp_path / "by-hand")


def test_run_goes_on_where_it_stopped(llama_folder, tmp_path):
    out = tmp_path / "run"
    first = done("run", "-m", llama_folder, *QUICK_RUN, "-o", out)
    assert "kept" not in first and first.strip().endswith(f"open {out / 'report.html'}")
    names = ["scores.json", "plan.json", "model", "eval-dense.json", "eval-cut.json", "report.html", "recipe.yaml"]
    names += ["report.md", "results.json", "results.csv"]
    assert sorted(p.name for p in out.iterdir()) == sorted(names)
    assert (out / "model" / "README.md").read_text(encoding="utf-8").startswith("---\n")
    stamps = {p: p.stat().st_mtime_ns for p in out.rglob("*.json") if p.name != "results.json"}
    assert done("run", "-m", llama_folder, *QUICK_RUN, "-o", out).count("kept") == 5
    (out / "eval-cut.json").unlink()
    assert done("run", out / "recipe.yaml", "-o", out).count("kept") == 4
    assert {p for p, t in stamps.items() if p.stat().st_mtime_ns != t} == {out / "eval-cut.json"}


def test_run_with_other_settings_needs_force(llama_folder, tmp_path):
    out = tmp_path / "run"
    done("run", "-m", llama_folder, *QUICK_RUN, "-o", out)
    line = failed("run", "-m", llama_folder, *QUICK_RUN, "--protect", "none", "-o", out)
    assert "plan.json: was made with other settings or inputs (choose.protect: ends, now none); give --force" in line
    again = done("run", "-m", llama_folder, *QUICK_RUN, "--protect", "none", "-o", out, "--force")
    assert again.count("kept") == 2  # the scores and the dense model's measurement


def test_run_notices_that_an_input_changed(llama_copy, tmp_path):
    out = tmp_path / "run"
    done("run", "-m", llama_copy, *QUICK_RUN, "-o", out)
    os.utime(llama_copy / "config.json", (1, 1))
    assert "scores.json: was made with other settings or inputs (inputs changed); give --force" in failed(
        "run", "-m", llama_copy, *QUICK_RUN, "-o", out
    )


def test_run_says_what_can_not_be_read(llama_folder, tmp_path):
    out = tmp_path / "run"
    done("run", "-m", llama_folder, *QUICK_RUN, "-o", out)
    manifest = out / "model" / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:300])
    line = failed("run", "-m", llama_folder, *QUICK_RUN, "-o", out)
    assert f"{manifest}: can't be read (is not a Manifest file: the file: Invalid JSON" in line
    assert line.endswith(f"; delete {out / 'model'} or give --force to make it anew, or choose another --out")
    again = done("run", "-m", llama_folder, *QUICK_RUN, "-o", out, "--force")
    assert again.count("kept") == 4 and Manifest.load(manifest).blocks


def test_run_refuses_a_foreign_folder(llama_folder, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    assert "the folder exists, is not empty and holds no run" in failed(
        "run", "-m", llama_folder, *QUICK_RUN, "-o", tmp_path
    )
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]


def test_run_never_takes_a_users_recipe_for_its_own(llama_folder, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("# by hand\nname: mine\n")
    line = failed("run", recipe, "-m", llama_folder, *QUICK_RUN, "-o", tmp_path, "--force")
    assert "holds no run" in line and recipe.read_text() == "# by hand\nname: mine\n"


def test_run_holds_text_out(llama_folder, tmp_path):
    text = tmp_path / "t.txt"
    text.write_text("Mira keeps a goat in the mill. " * 400)
    args = ["-m", llama_folder, "--text", text, "--sequences", 0, "-c", "bi", "--blocks", 1, "-o", tmp_path / "out"]
    assert "nothing is left to hold out; give --eval-text or --sequences" in failed("run", *args)


def test_run_refuses_before_it_scores(tmp_path):
    with quiet():
        save_tiny("gpt2", tmp_path / "m", scale_attn_by_inverse_layer_idx=True)
    line = failed("run", "-m", tmp_path / "m", *QUICK_RUN, "-o", tmp_path / "out")
    assert "gpt2: can't be cut soundly (scale_attn_by_inverse_layer_idx" in line
    assert not (tmp_path / "out" / "scores.json").exists()


def test_windows_beyond_the_context(llama_folder, tmp_path):
    line = failed("score", "-m", llama_folder, "--text", "embedded", "--length", "128", "-c", "bi")
    assert "windows of 129 tokens (BOS included) are beyond the model's 128; use a smaller --length" in line


def test_hand_fed_scores_are_checked(llama_folder, tmp_path):
    path = tmp_path / "s.json"
    done("score", "-m", llama_folder, "-c", "magnitude", "-o", path)
    good = json.loads(path.read_text())
    scores = good["criteria"]["magnitude"]["scores"]
    for wrong, message in [
        (scores[:3], "'magnitude' has 3 scores for 6 blocks"),
        ([float("nan"), *scores[1:]], "NaN or infinite"),
    ]:
        path.write_text(json.dumps(good | {"criteria": {"magnitude": {"scores": wrong, "unit": "u"}}}))
        assert message in failed("choose", path, "--blocks", "1", "--protect", "none")
    path.write_text(json.dumps(good | {"criteria": {}}))
    assert "criteria: Dictionary should have at least 1 item" in failed("choose", path, "--blocks", "1")


def test_names_are_printed_as_they_are(llama_folder, tmp_path):
    text = tmp_path / "a[" / "b].jsonl"
    text.parent.mkdir()
    text.write_text(json.dumps({"text": "Mira keeps a goat in the mill. " * 100}))
    assert "a[/b].jsonl: perplexity" in done(
        "eval", "-m", llama_folder, "--text", text, "--sequences", 2, "--length", 32
    )


def test_verbs_stay_verbs():
    """Folders of the same name are imported on the way; whatever the order, shortlm.score is the function."""
    code = "import shortlm, types; shortlm.run; shortlm.CRITERIA; import shortlm.sweep.equivalence\n"
    code += "from shortlm import *\n"
    code += "verbs = [shortlm.score, shortlm.choose, shortlm.cut, shortlm.evaluate, score, choose, cut, evaluate]\n"
    code += "assert all(isinstance(verb, types.FunctionType) for verb in verbs)"
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    subprocess.run([sys.executable, "-c", code], check=True, env=env)


def test_published_choice():
    text = done("choose", "--published", "llama-1-7b/taylor", "--blocks", "6")
    assert "remove 6 of 32 blocks: 24, 25, 26, 27, 28, 29" in text
    assert "6,738,415,616 -> 5,524,115,456" in text


def test_ids_without_a_tokenizer(llama_copy, tmp_path):
    for path in llama_copy.glob("tokenizer*"):
        path.unlink()
    ids = tmp_path / "ids.json"
    ids.write_text(json.dumps([[5, 6, 7, 8]] * 3))
    done("score", "-m", llama_copy, "--ids", ids, "-c", "ppl")
    line = failed("score", "-m", llama_copy, "--text", "embedded", "-c", "ppl")
    assert "the model has no tokenizer; put its tokenizer files into the folder, or give token ids (--ids)" in line


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["score", "embedded", "-c", "pppl"], "unknown criterion 'pppl'; did you mean 'ppl'?"),
        (["score", "embedded", "--length", "1"], "--length: input should be greater than or equal to 2 (got 1)"),
        (["score", "embedded", "--sequences", "-1"], "--sequences: must be a whole number, 0 to 10,000,000, or auto"),
        (["score", "-m", "./nowhere"], "./nowhere: no such folder"),
        (["score", "-m", "nobody/nothing"], "is no folder here and can't be fetched from the hub"),
        (["score", "embedded", "--text", "nowhere.txt"], "nowhere.txt: no such text file"),
        (["choose"], "give a scores file, a --method that asks the model, or --published with one of: llama-1-7b/ppl"),
        (["choose", "nowhere.json"], "nowhere.json: no such file; a BlockScores file (JSON) is needed"),
        (["choose", "--published", "llama-1-7b/taylr"], "did you mean 'llama-1-7b/taylor'?"),
        (["choose", "--published", "llama-1-7b/taylor"], "no budget; give one of"),
        (["choose", "--published", "llama-1-7b/taylor", "--blocks", "30"], "the closest is --blocks 26"),
        (["cut", "embedded", "-o", "x"], "give the blocks to remove: --plan FILE or --remove 3,7"),
        (["cut", "embedded", "--remove", "99", "-o", "x"], "blocks to remove: 99 is out of range"),
        (["cut", "embedded", "--remove", "1,1", "-o", "x"], "blocks to remove: 1 is given twice"),
        (
            ["cut", "embedded", "--remove", "0-11", "-o", "x"],
            "blocks to remove: all 12 blocks; at least one has to stay",
        ),
        (
            ["cut", "embedded", "--plan", "nowhere.json", "-o", "x"],
            "nowhere.json: no such file; a CutPlan file (JSON) is needed",
        ),
        (["report", "-o", "x.html"], "nothing to report; give --scores"),
        (["run", "nowhere.yaml"], "nowhere.yaml: no such recipe file"),
        (["run", "--to-params", "1"], "can't be met"),
    ],
)
def test_mistakes(args, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in failed(*args)
    assert not list(tmp_path.glob("x*"))


def test_wrong_artifact(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"kind": "CutPlan"}')
    assert f"{path}: is not a BlockScores file: " in failed("choose", path, "--blocks", "1")
    path.write_text("nonsense")
    assert "is not a BlockScores file: the file: Invalid JSON" in failed("choose", path, "--blocks", "1")


def test_outputs_are_not_overwritten(llama_folder, tmp_path):
    path = tmp_path / "scores.json"
    path.write_text("precious")
    line = failed("score", "-m", llama_folder, *FAST, "-c", "magnitude", "-o", path)
    assert f"{path}: the output file exists; choose another --out, or give --force" in line
    assert path.read_text() == "precious"
    done("score", "-m", llama_folder, *FAST, "-c", "magnitude", "-o", path, "--force")
    BlockScores.load(path)


def test_unwritable_output(llama_folder, tmp_path):
    (tmp_path / "file").touch()
    line = failed("score", "-m", llama_folder, "-c", "magnitude", "-o", tmp_path / "file" / "scores.json")
    assert "scores.json: can't be written (file exists)" in line


def test_debug_shows_the_traceback():
    result = shortlm("--debug", "choose")
    assert result.exit_code == 1 and "PlanError" in repr(result.exception)


def test_run_stage_failure_keeps_what_was_done(llama_folder, tmp_path, monkeypatch):
    out, rest = tmp_path / "run", ["--blocks", "1", "--protect", "ends", "--held-out", "4", "--new-tokens", "0"]
    command = ["run", "-m", llama_folder, *FAST, "-c", "bi", *rest, "--bench", "none", "-o", out]

    def full(*args):
        raise OutputError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(rounds, "cut", full)
        assert failed(*command) == "shortlm: the disk is full"
    assert sorted(p.name for p in out.iterdir()) == ["plan.json", "recipe.yaml", "scores.json"]
    assert done(*command).count("kept") == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--drop", "25"], "--drop 25: a share between 0 and 100% is needed"),
        (["--blocks", "99", "--protect", "none"], "budget '99 blocks' can't be met: it needs more blocks than may go"),
        (["--blocks", "5", "--protect", "ends"], "the closest is --blocks 4"),
        (["--to-params", "1", "--protect", "none"], "needs more blocks than may go"),
        (["--criterion", "nope"], "criterion 'nope' is not scored; known: bi"),
        (["--protect", "zzz"], "--protect: 'zzz' is no block index"),
        (["--protect", "0,99"], "--protect: 99 is out of range"),
        (["--rounds", "3", "--blocks", "2", "--protect", "none"], "--rounds 3: only 2 blocks go"),
        (["--rounds", "2", "--protect", "0"], "--protect 0: indices change from round to round"),
        (
            ["-c", "ppl", "--select", "1:none", "--blocks", "2", "--protect", "none"],
            "--select 1:none: a race for 1 (protec",
        ),
        (["-c", "ppl", "--select", "2", "--blocks", "2", "--protect", "none"], "the choice is of 2 (protected: none)"),
        (["-c", "bi:nope"], "criterion 'bi': unknown preset 'nope'"),
        (["--sequences", "0"], "nothing is left to hold out; give --eval-text or --sequences"),
    ],
)
def test_what_the_config_decides_is_told_before_anything_is_done(llama_folder, tmp_path, monkeypatch, options, message):
    monkeypatch.setattr(rounds, "score", lambda *args, **kwargs: pytest.fail("scored"))
    given = ["-c", "bi", *options] if "-c" not in options else options
    assert message in failed("run", "-m", llama_folder, *FAST, "--bench", "none", *given, "-o", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("number", "after"), [(signal.SIGINT, 1.5), (signal.SIGINT, 8), (signal.SIGTERM, 8)])
def test_stopped_from_outside(tmp_path, number, after):
    """A real process, stopped while it imports or scores: one line, exit code 2, nothing under the final name."""
    out = tmp_path / "scores.json"
    args = ["score", "embedded", "--sequences", "4000", "--length", "128", "-c", "ppl", "-o", str(out)]
    with subprocess.Popen(
        [sys.executable, "-m", "shortlm", *args], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "src")},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job's children ignore it
    ) as process:  # fmt: skip
        time.sleep(after)
        process.send_signal(number)
        try:
            _, stderr = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert process.returncode == 2, stderr
    assert stderr.strip().splitlines() == [
        "shortlm: stopped; nothing half-written was left, and the same command goes on with what was finished"
    ]
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_that_python_loses_is_not_lost():
    """As one that comes while a callback of an import or of the collector runs: the exception is printed and gone."""
    seen = []
    with pytest.raises(KeyboardInterrupt):
        for i in track(range(5)):
            seen.append(i)
            if i == 1:
                with contextlib.suppress(KeyboardInterrupt):
                    ask_to_stop()
    assert seen == [0, 1]
    assert list(track(range(3))) == [0, 1, 2]


def test_nothing_is_printed_of_an_interrupt_that_python_loses(capsys):
    class Collected:
        def __del__(self):
            raise KeyboardInterrupt if self.stop else ValueError("something else")

    def collect(stop):
        found, hook = Collected(), sys.unraisablehook
        found.stop = stop
        try:
            sys.unraisablehook = unraisable
            del found
        finally:
            sys.unraisablehook = hook
        return capsys.readouterr().err

    with contextlib.suppress(KeyboardInterrupt):
        ask_to_stop()
    assert collect(stop=True) == "" and "something else" in collect(stop=False)
    with pytest.raises(KeyboardInterrupt):
        list(track(range(2)))
    assert "KeyboardInterrupt" in collect(stop=True)


def test_a_disk_that_is_really_full(llama_folder, tmp_path):
    """The system itself refuses to write more than 100 kB to a file."""
    code = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); "
    code += f"from shortlm.cli import app; app(['cut', '-m', {str(llama_folder)!r}, '--remove', '1', '-o', 'out'])"
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr == "shortlm: out: can't be written (file too large); free some space or choose another --out\n"
    assert list(tmp_path.iterdir()) == []


def test_help_is_quick_and_light():
    """No heavy library is imported for --help; the time itself is measured in benchmarks/."""
    heavy = {"torch", "transformers", "matplotlib", "datasets", "numpy", "scipy"}
    code = "import sys; from shortlm.cli import app; app(['--help'], standalone_mode=False)\n"
    code += f"print('HEAVY', [m for m in {sorted(heavy)} if m in sys.modules])"
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert "HEAVY []" in result.stdout
    for verb in ("score", "choose", "cut", "eval", "bench", "compare", "report", "run"):
        assert verb in result.stdout


def test_every_setting_is_an_option_with_its_description():
    from shortlm.recipe import ChooseSettings, CutSettings, ModelSettings, ScoreSettings, TextSettings

    text = re.sub(r"[\s│]+", " ", done("run", "--help"))
    for kind in (ModelSettings, TextSettings, ScoreSettings, ChooseSettings, CutSettings):
        for name in kind.model_fields:
            assert name.replace("_", "-")[:10] in text, name


def test_version_says_what_it_runs_on():
    import torch
    import transformers

    import shortlm

    said = done("--version").strip()
    assert said == done("-V").strip() and said.startswith(f"shortlm {shortlm.__version__} (Python 3.")
    assert f"torch {torch.__version__}, transformers {transformers.__version__}" in said


@pytest.mark.parametrize("verb", ["score", "plan-memory", "cut", "repair", "prune-width", "heal", "eval"])
def test_the_model_is_given_by_position_or_as_an_option_and_asked_for(verb):
    assert "[MODEL]" in done(verb, "-h") and "--model" in done(verb, "--help")
    out = {"score": [], "plan-memory": [], "eval": []}.get(verb, ["--out", "out"])
    more = {"repair": ["--against", "embedded"], "cut": ["--remove", "1"]}.get(verb, [])
    assert "which model? give a folder, a hub id, or 'embedded' (the tiny model inside)" in failed(verb, *out, *more)
    assert "the model is given twice: 'a' and --model 'b'" in failed(verb, "a", "-m", "b", *out, *more)
    for given in (["./nowhere"], ["-m", "./nowhere"]):
        assert "./nowhere: no such folder" in failed(verb, *given, *out, *more)


@pytest.mark.parametrize("verb", ["bench", "compare"])
def test_several_models_too(verb):
    out = ["--out", "out"] if verb == "compare" else []
    assert "which models? give folders, hub ids, or 'embedded'" in failed(verb, *out)
    assert "./nowhere: no such folder" in failed(verb, "embedded", "-m", "./nowhere", *out)
