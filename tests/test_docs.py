"""The docs: every command in them is one that the program takes, the tour runs, examples do what they say."""

from __future__ import annotations

import re
import runpy
import shlex
import warnings
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from shortlm.cli import app
from shortlm.recipe import ScoreSettings

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(page.read_text(encoding="utf-8")) if kind == language]


def commands(page: Path) -> list[list[str]]:
    """The arguments of every call of shortlm in its shell blocks."""
    lines = [line for text in blocks(page, "bash") for line in text.replace("\\\n", " ").splitlines()]
    words = [shlex.split(re.split(r"\s+#", line)[0]) for line in lines if not line.startswith("#")]
    return [line[line.index("shortlm") + 1 :] for line in words if "shortlm" in line[:12] and line[0] != "pip"]


ALL = [pytest.param(call, id=f"{page.stem}: {' '.join(call)}") for page in PAGES for call in commands(page)]


def test_commands_are_found():
    assert len(ALL) > 60


@pytest.mark.parametrize("call", ALL)
def test_every_command_and_option_exists(call):
    """Parsed as the program does it; whether files and values are there is not asked."""
    command, context = typer.main.get_command(app), None
    while True:
        try:
            context = command.make_context(command.name or "shortlm", list(call), parent=context)
        except typer.Exit:  # of an option that prints and ends, as heal --presets
            return
        rest = [*context._protected_args, *context.args] if hasattr(context, "_protected_args") else context.args
        if not rest or not hasattr(command, "commands"):
            return
        name, *call = rest
        assert name in command.commands, f"no command {name}"
        command = command.commands[name]


@pytest.mark.slow
def test_the_tour_runs_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for call in commands(ROOT / "docs" / "tour.md"):
        done = CliRunner().invoke(app, call)
        assert done.exit_code == 0, f"{call}: {done.output}"
    for text in blocks(ROOT / "docs" / "tour.md", "python"):
        exec(compile(text, "tour.md", "exec"), {})
    assert "<html" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (text,) = blocks(ROOT / "README.md", "python")
    exec(compile(text, "README.md", "exec"), {})
    assert (tmp_path / "healed" / "model.safetensors").is_file()


def test_the_example_of_a_criterion_scores(monkeypatch):
    from shortlm.recipe.specs import Options
    from shortlm.score import registry, score

    names = {}
    (text,) = blocks(ROOT / "docs" / "extending.md", "python")
    exec(compile(text, "extending.md", "exec"), names)
    kind = names["OutputSize"]
    monkeypatch.setitem(registry.CRITERIA, kind.name, kind)
    monkeypatch.setitem(
        registry.KNOWN, kind.name, Options(kind.defaults, kind.presets, registry.CHOICES, registry.LIMITS)
    )
    found = score("embedded", {"sequences": 2, "length": 32}, ScoreSettings(criteria=["output_size"]))
    sizes = found.criteria["output_size"].scores
    assert len(sizes) == 12 and 0 < sizes[0] < sizes[-1]


def test_the_notebook_runs_from_top_to_bottom(tmp_path, monkeypatch):
    """Its outputs are not kept in the file: they would differ a little on every machine."""
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    notebook = nbformat.read(ROOT / "docs" / "tour.ipynb", as_version=4)
    assert all(not cell.outputs for cell in notebook.cells if cell.cell_type == "code")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the kernel's own libraries
        NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = ["".join(out.get("text", "") for out in cell.outputs) for cell in notebook.cells if "outputs" in cell]
    assert "1,867,136 -> 1,276,288 parameters" in printed[2] and "repaired" in printed[4] and "Tobin" in printed[5]


def test_the_page_of_recipes_is_that_of_the_recipes():
    made = runpy.run_path(str(ROOT / "benchmarks" / "recipes_page.py"))
    assert (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8") == made["page"]()


def test_every_page_stands_in_the_contents():
    contents = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert all(f" {page.name}" in contents for page in (ROOT / "docs").glob("*.md"))
