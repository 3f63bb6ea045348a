"""The recipes that come with the package, by name: shortened-llama/llama-2-7b-taylor, or llama-2-7b-taylor."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from shortlm.documents import parse_yaml
from shortlm.errors import RecipeError, did_you_mean
from shortlm.paths import user_path

ARXIV = re.compile(r"\d{4}\.\d{5}")
FOLDER = Path(__file__).parents[1] / "recipes"


def shipped() -> dict[str, Path]:
    """The files by their names: folder and file, without .yaml."""
    files = sorted(FOLDER.rglob("*.yaml"), key=lambda path: (len(path.relative_to(FOLDER).parts), path))
    return {path.relative_to(FOLDER).with_suffix("").as_posix(): path for path in files}


def recipe_file(name: Path | str) -> Path:
    """The file of this path, or the shipped recipe of this name. Raises RecipeError if there is neither."""
    path, known = user_path(name), shipped()
    if path.is_file():
        return path
    asked = Path(name).as_posix().removesuffix(".yaml").removeprefix("recipes/")
    if found := known.get(asked) or _only_one(asked, known):
        return found
    near = did_you_mean(str(name), known)
    hint = near if near.startswith("did you mean") else "'shortlm recipes' lists those that come with the package"
    raise RecipeError(f"{path}: no such recipe file; {hint}")


def _only_one(asked: str, known: dict[str, Path]) -> Path | None:
    """The recipe of this name in whichever folder, if there is one such."""
    found = [path for name, path in known.items() if name.endswith(f"/{asked}")]
    return found[0] if len(found) == 1 else None


class Described(NamedTuple):
    """A shipped recipe in a list."""

    name: str
    command: str  # that reads it
    model: str
    method: str  # by which it chooses, and what follows
    source: str  # the paper of its settings


def described(name: str) -> Described:
    """What the recipe of this name says of itself."""
    content = parse_yaml(shipped()[name].read_text(encoding="utf-8"), name, RecipeError)
    assert isinstance(content, dict)
    model = content.get("model") or {}
    which = model.get("model", "embedded") if isinstance(model, dict) else model
    paper = ARXIV.search(str(content.get("source")))
    source = f"arXiv {paper[0]}" if paper else ""
    if "distributed_type" in content:
        return Described(name, "accelerate launch", "", "", source)
    if "phases" in content:
        return Described(name, "heal --recipe", "", content["phases"][0]["method"], source)
    if "ways" in content:
        return Described(name, "compare", which, f"{len(content['ways'])} ways", source)
    return Described(name, "run", which, _method(content), source)


def _method(content: dict[str, Any]) -> str:
    """The criterion or the search, without the names of presets; then repair and heal."""
    choose = content["choose"]
    by = str(choose.get("criterion") or choose["method"]).partition(":")[0]
    return " + ".join([by, *(stage for stage in ("repair", "heal") if stage in content)])
