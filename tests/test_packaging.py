"""What is said of the package, and what it says of a package that is not there."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
from pathlib import Path

import yaml
from typer.testing import CliRunner

import shortlm
from shortlm.cli import app

ROOT = Path(__file__).parents[1]


def test_the_version_stands_where_the_release_notes_say():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == shortlm.__version__
    papers = [reference["identifiers"][0]["value"] for reference in citation["references"]]
    assert papers == ["arXiv:2402.02834", "arXiv:2403.03853", "arXiv:2403.17887", "arXiv:2402.09025"]


def test_every_kind_of_file_is_named_in_the_package_data():
    """What `make test-wheel` finds out for good, before anything is built."""
    told = re.search(r"^shortlm = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    patterns = [part.strip().strip('"') for part in told[1].split(",")]
    package = ROOT / "src" / "shortlm"
    carried = {path for pattern in patterns for path in package.glob(pattern)}
    files = {path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert files <= carried, files - carried


def test_the_version_without_torch(monkeypatch):
    def version(name):
        if name == "torch":
            raise importlib.metadata.PackageNotFoundError(name)
        return "5.0"

    monkeypatch.setattr(importlib.metadata, "version", version)
    told = CliRunner().invoke(app, ["--version"])
    assert told.exit_code == 0 and told.output.strip().endswith("torch is not installed, transformers 5.0)")


def test_a_command_without_torch_ends_in_one_line(monkeypatch):
    def locate(*args, **kwargs):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(importlib.import_module("shortlm.score"), "plan_memory", locate)
    told = CliRunner().invoke(app, ["plan-memory", "embedded"])
    assert told.exit_code == 2
    assert told.output == "shortlm: needs torch, which is not installed: pip install torch\n"
