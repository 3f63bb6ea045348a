"""The command line as one meets it: short options, examples, completion, narrow terminals, streams of ASCII alone."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_by_hand import block_scores, cut_plan, manifest, measurement
from test_measured_report import benchmark, task, tasked
from typer.main import get_command
from typer.testing import CliRunner

from shortlm import completing, console
from shortlm.artifacts import Certainty, TaskResult
from shortlm.cli import app
from shortlm.options import SHORT

GROUP: Any = get_command(app)


def commands(group: Any = GROUP, above: str = "") -> Iterator[tuple[str, Any]]:
    """All commands and groups by their names as they are typed."""
    yield above.strip() or "shortlm", group
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, f"{above} {name}")


COMMANDS = dict(commands())


def python(*args: str, **env: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "src")} | env
    return subprocess.run([sys.executable, *args], capture_output=True, env=environment, timeout=60)


def shortlm(*args: str, **env: str) -> subprocess.CompletedProcess:
    return python("-m", "shortlm", *args, **env)


# Short options


def test_a_short_option_means_one_thing_everywhere():
    meant = {short: f"--{name.replace('_', '-')}" for name, short in SHORT.items()}
    assert len(meant) == len(SHORT)
    for name, command in COMMANDS.items():
        for param in command.params:
            long = [opt for opt in param.opts if opt.startswith("--")]
            short = [opt for opt in param.opts if not opt.startswith("--") and opt.startswith("-")]
            assert all(meant.get(each) in long for each in short), (name, param.opts)
            assert all(SHORT[n] in short for n in SHORT if f"--{n}" in long), (name, param.opts)


# Examples


def examples() -> list[tuple[str, str]]:
    return [(name, line) for name, command in COMMANDS.items() for line in (command.epilog or "").split("\n\n")[1:]]


def test_every_command_has_examples_of_itself():
    for name, command in COMMANDS.items():
        lines = (command.epilog or "").split("\n\n")
        assert lines[0] == "[bold]Examples[/bold]" and 1 <= len(lines[1:]) <= 3, name
        above = "" if name == "shortlm" else f" {name}"
        assert all(line.startswith(f"shortlm{above}") and len(line) < 110 for line in lines[1:]), name


@pytest.mark.parametrize(("name", "line"), examples())
def test_examples_are_of_options_that_exist(name, line):
    args = shlex.split(line.partition(" > ")[0])[1:]
    ctx = GROUP.make_context("shortlm", list(args), resilient_parsing=False)
    command = GROUP
    rest = [*ctx._protected_args, *ctx.args]
    while hasattr(command, "commands") and rest and rest[0] in command.commands:
        command, rest = command.commands[rest[0]], rest[1:]
    with command.make_context(name, rest, parent=ctx) as parsed:
        assert not parsed.args


# Completion


def completed(words: str, shell: str = "complete_bash") -> list[str]:
    code = "import sys; from shortlm.cli import app\n"
    code += "try: app(prog_name='shortlm')\n"
    code += "finally: print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules], file=sys.stderr)"
    count = len(shlex.split(words)) - (not words.endswith(" "))
    env = {"_SHORTLM_COMPLETE": shell, "COMP_WORDS": words, "COMP_CWORD": str(count)}
    found = python("-c", code, **env)
    assert found.stderr.decode().strip().splitlines()[-1] == "[]", "nothing heavy is imported"
    return found.stdout.decode().split()


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("shortlm prune", ["prune-width"]),
        ("shortlm cut emb", ["embedded"]),
        ("shortlm cut --model emb", ["embedded"]),
        ("shortlm score embedded -c tay", ["taylor"]),
        ("shortlm score embedded -c ppl,tay", ["ppl,taylor"]),
        ("shortlm choose --criterion b", ["bi"]),
        ("shortlm choose --method gr", ["greedy"]),
        ("shortlm repair x --against y --method re", ["refit"]),
        ("shortlm prune-width --method w", ["wanda-sp"]),
        ("shortlm heal --preset shortened-llm-cpt-", ["shortened-llm-cpt-lora"]),
        ("shortlm bench --preset s", ["shortened-llm", "sleb"]),
        ("shortlm run embedded-d", ["embedded-demo"]),
        ("shortlm recipes show contests/e", ["contests/embedded"]),
        ("shortlm bench --quant", []),
    ],
)
def test_completion(words, wanted):
    assert completed(words) == wanted


def test_paths_are_completed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("model/config.json", "models/a/config.json", "t.jsonl", "r.yaml", ".hidden/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert completing.models("mod") == ["model", "models/"] and completing.models("models/") == ["models/a"]
    assert completing.models("./m") == ["./model", "./models/"] and completing.models("nowhere/x") == []
    assert completing.texts("t") == ["t.jsonl"] and completing.texts("") == ["embedded", "model", "models/", "t.jsonl"]
    assert completing.recipes("r") == ["r.yaml"]


def test_completed_names_are_those_there_are():
    from shortlm.choose.methods import KNOWN as CHOOSING
    from shortlm.repair.methods import METHODS as REPAIRING
    from shortlm.score import CRITERIA
    from shortlm.width.methods import METHODS as NARROWING

    assert sorted(CRITERIA) == list(completing.CRITERIA) and sorted(CHOOSING) == list(completing.CHOOSING)
    assert sorted(REPAIRING) == list(completing.REPAIRING) and sorted(NARROWING) == list(completing.NARROWING)


def test_completion_can_be_shown():
    """typer asks the parent process which shell it is, which in a test may be none."""
    done = shortlm("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert "_SHORTLM_COMPLETE=complete_bash" in done.stdout.decode()


# Narrow terminals, and streams that take ASCII alone


@pytest.fixture()
def narrow(monkeypatch):
    monkeypatch.setattr(console.out, "_width", 60)
    return console.out


def several(name: str) -> TaskResult:
    plain = task(name, [1.0, 0.0, 1.0, 1.0])
    return plain.model_copy(
        update={"metrics": {"acc": 0.75, "acc_norm": 0.5, "brier": 0.25}, "stderrs": {"acc": 0.25, "acc_norm": 0.2887}}
    )


def of_all_kinds() -> list[Any]:
    tasks = [several("a_task_of_a_rather_long_name"), several("two"), task("three", [1.0, 0.0])]
    measured = tasked("cut", 1, 0.7).model_copy(update={"tasks": tasks, "samples": []})
    return [
        lambda: console.show_scores(block_scores()), lambda: console.show_plan(cut_plan()),
        lambda: console.show_manifest(manifest(), "shorter"), lambda: console.show_measurement(measured),
        lambda: console.show_benchmark(benchmark()),
    ]  # fmt: skip


@pytest.mark.parametrize("number", range(5))
def test_nothing_is_wider_than_the_terminal_or_lost(number, narrow, capsys):
    of_all_kinds()[number]()
    lines = capsys.readouterr().out.splitlines()
    assert lines and max(map(len, lines)) <= 60 and not any("…" in line for line in lines)
    words = " ".join(" ".join(lines).split())
    narrow._width = 400
    of_all_kinds()[number]()
    whole = " ".join(capsys.readouterr().out.split())
    assert {w for w in whole.split() if "─" not in w and "long_name" not in w} <= set(words.split())


def test_a_path_is_not_broken(narrow, capsys):
    path = "/a/rather/long/path/" * 5 + "model"
    console.tell(f"{path}: blocks 0, 1, 2, 3, 4, 5 of the original, which has more of them than fit")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{path}:" and max(map(len, lines[1:])) <= 60


def test_metrics_of_a_task_stand_side_by_side(capsys):
    measured = measurement("cut").model_copy(update={"tasks": [several("one"), task("two", [1.0, 0.0])]})
    console.show_measurement(measured)
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line.split()}
    assert rows["task"] == ["task", "acc", "acc_norm", "brier", "shots", "questions"]
    assert " ".join(rows["one"]) == "one 0.7500 ± 0.2500 * 0.5000 ± 0.2887 0.2500 0 4"
    assert " ".join(rows["two"]) == "two 0.5000 ± 0.5000 0 2"


ASCII = {"PYTHONIOENCODING": "ascii", "COLUMNS": "60", "NO_COLOR": "1"}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_in_ascii_and_60_columns(name):
    args = [] if name == "shortlm" else name.split()
    found = shortlm(*args, "--help", **ASCII)
    assert found.returncode == 0 and found.stderr == b""
    text = found.stdout.decode("ascii")
    assert "\x1b" not in text and "Examples" in text and max(map(len, text.splitlines())) <= 60


def test_results_in_ascii_and_60_columns(tmp_path):
    """A real process; ± is written as +-, and names in other letters as Python writes them."""
    folder = tmp_path / "modèle"
    code = "import sys; from shortlm.cli import app\n"
    code += f"app(['cut', 'embedded', '--remove', '5', '-o', {str(folder)!r}], standalone_mode=False)\n"
    code += f"app(['eval', {str(folder)!r}, '-n', '4', '--length', '32', '-t', 'embedded'], standalone_mode=False)"
    found = python("-c", code, **ASCII)
    assert found.returncode == 0, found.stderr
    text = " ".join(found.stdout.decode("ascii").split())
    assert "mod\\xe8le: blocks 0, 1, 2" in text and " +- 0." in text and "\x1b" not in text
    again = shortlm("cut", "embedded", "--remove", "5", "-o", str(folder), **ASCII)
    assert again.returncode == 2 and b"mod\\xe8le: the output folder exists" in again.stderr


def test_in_the_c_locale():
    found = shortlm("choose", "--published", "llama-1-7b/taylor", "--blocks", "6", LANG="C", LC_ALL="C")
    assert found.returncode == 0 and b"remove 6 of 32 blocks" in found.stdout


# How sure a choice is


def sure(same: float) -> Certainty:
    return Certainty(resamples=1000, sets=45, same=same, overlap=0.9, regret=0.001, regret_95=0.003)


@pytest.mark.parametrize(("agreement", "low"), [(0.95, False), (0.9, False), (0.89, True), (None, False)])
def test_a_word_where_a_choice_is_not_sure(agreement, low, capsys):
    console.show_plan(cut_plan().model_copy(update={"agreement": agreement}))
    text = capsys.readouterr().out
    assert ("low: other text may choose otherwise (below 90%); give more --sequences" in text) == low
    assert (f"chosen in {agreement:.0%} of resamples" in text) if agreement else "resamples" not in text


def test_the_rule_is_that_of_sequences_auto():
    assert sure(0.9).enough and not sure(0.89).enough
    criterion = block_scores().criteria["ppl"]
    assert criterion.model_copy(update={"rank_agreement": 0.8}).stable
    assert criterion.model_copy(update={"rank_agreement": 0.79}).stable is False
    assert criterion.model_copy(update={"rank_agreement": None}).stable is None


def test_a_word_where_ranks_are_not_stable(capsys):
    scores = block_scores()
    criteria = {n: c.model_copy(update={"rank_agreement": 0.5}) for n, c in scores.criteria.items()}
    console.show_scores(scores.model_copy(update={"criteria": criteria}))
    assert f"low for {', '.join(criteria)}: one in ten pairs of blocks or more" in capsys.readouterr().out


# Which model


def test_choose_takes_the_model_by_place_too(tmp_path):
    def failed(*args: str) -> str:
        result = CliRunner().invoke(app, list(args), prog_name="shortlm")
        assert result.exit_code == 2, result.output
        return result.stderr

    asking = ["choose", "--method", "greedy", "--blocks", "1"]
    assert "which model? give a folder, a hub id, or 'embedded'" in failed(*asking)
    assert "the model is given twice: './a' and --model './b'" in failed(*asking, "./a", "-m", "./b")
    for given in (["./nowhere"], ["-m", "./nowhere"]):
        assert "./nowhere: no such folder" in failed(*asking, *given)
    assert "nowhere.json: no such file; a BlockScores file" in failed(*asking, "nowhere.json", "-m", "embedded")
    assert "which model?" in failed(*asking, str(Path(__file__)))
