"""How commands hand over their results: --json and --quiet, whatever the command; where all else goes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_cli import FAST, QUICK_RUN, done, failed, shortlm

from shortlm.artifacts import BlockScores, Manifest
from shortlm.cli import app
from shortlm.cli.result import hand_over, say
from shortlm.progress import EVERY, Bar, be_quiet, track

TRAINING = ["--method", "cpt", "--data", "embedded", "--separator", "\n\n", "--steps", 1, "--batch", 2, "--length", 16]


@pytest.fixture(scope="module")
def made(llama_folder, tmp_path_factory) -> Path:
    """A folder with a file of every kind."""
    folder = tmp_path_factory.mktemp("made")
    done("score", "-m", llama_folder, *FAST, "-c", "bi", "-o", folder / "scores.json")
    done("choose", folder / "scores.json", "--blocks", 1, "--protect", "ends", "-o", folder / "plan.json")
    done("cut", llama_folder, "--plan", folder / "plan.json", "-o", folder / "cut")
    return folder


def command(verb: str, llama: Path, made: Path, out: Path) -> list[object]:
    """A command line that writes `out`."""
    fast = [*FAST, "-o", out]
    return {
        "score": ["score", llama, *fast, "-c", "bi"],
        "plan-memory": ["plan-memory", llama, *fast],
        "choose": ["choose", made / "scores.json", "--blocks", 1, "--protect", "ends", "-o", out],
        "cut": ["cut", llama, "--remove", 2, "-o", out],
        "prune-width": ["prune-width", llama, *fast, "--drop-params", "10%"],
        "repair": ["repair", made / "cut", "--against", llama, "-t", "embedded", "--length", 32, "--calibration", 4,
                   "--validation", 4, "-o", out],
        "heal": ["heal", made / "cut", *TRAINING, "-o", out],
        "eval": ["eval", llama, *fast, "--new-tokens", 4],
        "bench": ["bench", llama, "--batches", 1, "--prompt-tokens", 4, "--output-tokens", 2, "--runs", 1, "--warmup",
                  0, "-o", out],
        "compare": ["compare", llama, made / "cut", *fast, "--new-tokens", 4, "--bench", "none"],
        "run": ["run", "-m", llama, *QUICK_RUN, "-o", out],
        "report": ["report", "--scores", made / "scores.json", "-o", out],
        "copy": ["recipes", "copy", "embedded-demo", out],
    }[verb]  # fmt: skip


KINDS = {
    "score": "BlockScores", "plan-memory": "WorkEstimate", "choose": "CutPlan", "cut": "Manifest",
    "prune-width": "Manifest", "repair": "Manifest", "heal": "Healing", "eval": "Measurement", "bench": "Benchmark",
    "compare": None, "run": None, "report": None, "copy": None,
}  # fmt: skip


@pytest.mark.parametrize("verb", KINDS)
def test_one_object_and_nothing_else_on_standard_output(verb, llama_folder, made, tmp_path):
    line = command(verb, llama_folder, made, tmp_path / "out")
    told = json.loads(done(*line, "--json"))
    assert list(told) == ["command", "written", "result"]
    assert told["command"] == ("recipes copy" if verb == "copy" else verb)
    assert told["written"][0].startswith(str(tmp_path / "out")) and all(Path(p).exists() for p in told["written"])
    if verb in ("run", "compare"):
        assert told["result"] == json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    else:
        assert (told["result"] or {}).get("kind") == KINDS[verb]
    if verb not in ("run", "compare", "heal"):  # which go on where they were
        again = shortlm(*line, "--json")
        assert again.exit_code == 2 and again.stdout == "" and again.stderr.count("\n") == 1


@pytest.mark.parametrize("verb", KINDS)
def test_quiet_prints_paths_alone(verb, llama_folder, made, tmp_path):
    said = shortlm(*command(verb, llama_folder, made, tmp_path / "out"), "-q")
    assert said.exit_code == 0, said.output
    assert said.stderr == "" and said.stdout
    assert all(line.startswith(str(tmp_path / "out")) and Path(line).exists() for line in said.stdout.splitlines())


def test_before_the_name_of_the_command_too(made):
    line = ["choose", made / "scores.json", "--blocks", 1, "--protect", "ends"]
    behind = json.loads(done(*line, "--json"))
    before = json.loads(done("--json", *line))
    created = [told["result"]["provenance"].pop("created") for told in (behind, before)]
    assert all(created) and before == behind and before["written"] == []
    assert "remove 1 of 6 blocks" in done(*line), "what was asked once is not remembered"
    assert json.loads(done("recipes", "--json"))["result"][0]["name"] == "demo"
    assert json.loads(done("--json", "recipes", "show", "embedded-demo"))["command"] == "recipes show"


def test_the_artifact_is_the_file(llama_folder, made, tmp_path):
    told = json.loads(done("score", llama_folder, *FAST, "-c", "bi", "-o", tmp_path / "s.json", "--json"))
    assert BlockScores.model_validate(told["result"]) == BlockScores.load(tmp_path / "s.json")
    told = json.loads(done("cut", llama_folder, "--remove", 1, "-o", tmp_path / "cut", "--json"))
    assert Manifest.model_validate(told["result"]) == Manifest.load(tmp_path / "cut" / "manifest.json")


def test_without_a_file_the_result_is_shown_however_quiet(made):
    said = shortlm("choose", made / "scores.json", "--blocks", 1, "--protect", "ends", "--quiet")
    assert "remove 1 of 6 blocks" in said.stdout and said.stderr == ""


def test_errors_stay_one_line_on_standard_error(made):
    for asked in ("--json", "--quiet"):
        said = shortlm("choose", made / "scores.json", "--blocks", 99, asked)
        assert said.exit_code == 2 and said.stdout == "" and said.stderr.count("\n") == 1
    assert "no such option: --jsn" in failed("choose", "--jsn")


def test_what_anything_prints_meanwhile_goes_to_standard_error(llama_folder, monkeypatch):
    def chatty(*args, **kwargs):
        print("a library speaks")
        say("so do we")
        return BlockScores.model_construct(kind="BlockScores")

    monkeypatch.setattr(sys.modules["shortlm.score"], "score", chatty)
    said = shortlm("score", llama_folder, *FAST, "--json")
    assert json.loads(said.stdout)["result"]["kind"] == "BlockScores"
    assert said.stderr == "a library speaks\nso do we\n"


def test_every_command_takes_part():
    """Those that others add too: the options come with `app.command`."""
    from typer.main import get_command

    def commands(group):
        for name, command in group.commands.items():
            yield name, command
            yield from commands(command) if hasattr(command, "commands") else ()

    for name, found in commands(get_command(app)):
        options = {opt for param in found.params for opt in param.opts}
        assert {"--quiet", "-q", "--json"} <= options, name


def test_checkpoints_have_a_card(llama_folder, made, tmp_path):
    made_by = {"cut": "The weights of the remaining blocks are unchanged", "repair": "Repaired without training",
               "heal": "Then it was healed by cpt"}  # fmt: skip
    for verb, words in made_by.items():
        done(*command(verb, llama_folder, made, tmp_path / verb))
        card = (tmp_path / verb / "README.md").read_text(encoding="utf-8")
        assert card.startswith("---\nlibrary_name: transformers") and f"# {verb}\n" in card and words in card, verb
        assert str(tmp_path) not in card and str(llama_folder) not in card
    once = shortlm("cut", llama_folder, "--remove", 2, "-o", tmp_path / "cut", "--force")
    assert once.exit_code == 0 and (tmp_path / "cut" / "README.md").is_file()


def test_a_cut_alone_draws_its_card_elsewhere(llama_folder, tmp_path):
    """So that it imports neither torch nor what reports are drawn with."""
    out = tmp_path / "out"
    code = "import sys; from shortlm.cli import app\n"
    code += f"app(['cut', {str(llama_folder)!r}, '--remove', '1', '--no-verify', '-o', {str(out)!r}], "
    code += "standalone_mode=False)\nprint([m for m in ('torch', 'numpy', 'matplotlib') if m in sys.modules])"
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert found.stdout.splitlines()[-1] == "[]" and found.stderr == ""
    assert (out / "README.md").read_text(encoding="utf-8").startswith("---\nlibrary_name")


def test_nothing_to_show_but_the_paths(capsys):
    hand_over(None, Path("a"), None, "b")
    assert capsys.readouterr().out == "a\nb\n"


def test_without_a_terminal_a_line_a_minute_says_what_is_left(capsys, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr(Bar, "told", 0.0)
    bar = track(what="sweep", total=10)
    bar.begin_at(2)
    for step in range(3, 8):
        now[0] += EVERY / 2
        bar.move_to(step)
    assert capsys.readouterr().err == "sweep: 40%, 01:00, 03:00 left\nsweep: 60%, 02:00, 02:00 left\n"
    now[0] += 10 * EVERY
    be_quiet(True)
    bar.update(1)
    be_quiet(False)
    assert capsys.readouterr().err == ""


def test_bars_of_a_terminal_say_what_is_left():
    code = "import sys; sys.stderr.isatty = lambda: True; from shortlm.progress import *; "
    code += "bar = track(what='sweep', total=4); bar.update(1); bar.refresh(); bar.close()"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "sweep:  25%|" in found.stderr and "1/4 [00:00, 00:00 left]" in found.stderr
