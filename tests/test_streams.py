"""What reaches standard output and standard error where these are closed, broken or full, or arguments are odd."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from shortlm.cli import app

CHOOSE = "choose --published llama-1-7b/taylor --blocks 6"


def shell(redirected: str) -> subprocess.CompletedProcess:
    """`redirected` with $S for the command, as bash runs it."""
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "src"), "S": f"{sys.executable} -m shortlm"}
    return subprocess.run(["bash", "-c", redirected], capture_output=True, text=True, env=env, timeout=60)


@pytest.mark.parametrize(
    ("redirected", "code", "said"),
    [
        (f"$S {CHOOSE} >&-", 0, ""),
        (f"$S {CHOOSE} >&- 2>&-", 0, ""),
        ("$S choose >&- 2>&-", 2, ""),
        (f"$S {CHOOSE} >/dev/full", 2, "standard output: can't be written (no space left on device)"),
        (f"set -o pipefail; $S {CHOOSE} | true", 2, "standard output: can't be written (broken pipe)"),
        (f"$S {CHOOSE} 1</dev/null", 2, "standard output: can't be written (bad file descriptor)"),
    ],
)
def test_where_standard_output_is_not_what_it_should_be(redirected, code, said):
    result = shell(redirected)
    assert result.returncode == code, result.stderr
    expected = [f"shortlm: {said}; what --out names is whole"] if said else []
    assert result.stderr.strip().splitlines() == expected


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["choose", "\udcff.json"], "shortlm: '\\udcff.json': is not valid UTF-8 text; rename the file"),
        (["--debig", "choose"], "shortlm: no such option: --debig"),
        (["chose"], "shortlm: no such command 'chose'. Did you mean 'choose'?; see shortlm --help"),
        (["choose", "--blocks", "x"], "shortlm: invalid value for '--blocks': Input should be a valid integer"),
        (["choose", "--blocks", "x" * 3_000_000], "; see shortlm choose --help\n"),
        (["cut"], "shortlm: missing option '--out' / '-o'; see shortlm cut --help"),
        (["x" * 3_000_000], "shortlm: no such command 'xxx"),
        (["choose", "y" * 3_000_000], "characters); give a shorter one\n"),
        (["score", "embedded", "-c", "y" * 3_000_000], "known: angular, bi"),
    ],
)  # fmt: skip
def test_one_line_whatever_the_arguments(args, message):
    result = CliRunner().invoke(app, args, prog_name="shortlm")
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr and len(result.stderr) < 1100 and result.stderr.count("\n") == 1


def test_help_without_arguments():
    assert "score" in CliRunner().invoke(app, [], prog_name="shortlm").output
