"""The recipes that come with the package, by name: shortened-llama/llama-2-7b-taylor."""

from __future__ import annotations

import re
from pathlib import Path

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
    if found := known.get(Path(name).as_posix().removesuffix(".yaml").removeprefix("recipes/")):
        return found
    near = did_you_mean(str(name), known)
    hint = near if near.startswith("did you mean") else "'shortlm recipes' lists those that come with the package"
    raise RecipeError(f"{path}: no such recipe file; {hint}")


def described(name: str) -> tuple[str, str, str, str]:
    """Of a shipped recipe: its name, the command that reads it, the model, the paper of its settings."""
    content = parse_yaml(shipped()[name].read_text(encoding="utf-8"), name, RecipeError)
    assert isinstance(content, dict)
    model = content.get("model") or {}
    which = model.get("model", "embedded") if isinstance(model, dict) else model
    paper = ARXIV.search(str(content.get("source")))
    source = f"arXiv {paper[0]}" if paper else ""
    if "distributed_type" in content:
        return name, "accelerate launch", "", source
    if "phases" in content:
        return name, "heal --recipe", "", source
    return name, "compare" if "ways" in content else "run", which, source
