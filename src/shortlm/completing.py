"""What the shell can complete: models, texts, recipes, presets, criteria, methods. Nothing heavy is imported for it.

A function takes what was typed so far. One that knows none of it leaves the shell to complete file names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from shortlm.recipe import preset_names, shipped
from shortlm.recipe.presets import Stage

Completer = Callable[[str], list[str]]

# As the registries of score/, choose/, repair/ and width/ have them, which import torch.
CRITERIA = (
    "angular",
    "bi",
    "depth",
    "first_order",
    "magnitude",
    "mse",
    "ppl",
    "random",
    "relative_magnitude",
    "taylor",
)
CHOOSING = (
    "auto", "beam", "contiguous", "evolutionary", "exhaustive", "greedy", "local-search", "one-shot", "race", "runs",
)  # fmt: skip
REPAIRING = ("auto", "linear", "none", "refit", "scale")
NARROWING = ("flap", "llm-pruner", "wanda-sp")


def models(incomplete: str) -> list[str]:
    """'embedded', and folders: those of checkpoints as they are, others to be looked into."""
    return [*_beginning(incomplete, ["embedded"]), *_paths(incomplete, lambda path: path.is_dir())]


def texts(incomplete: str) -> list[str]:
    """'embedded', and files that text is read from."""
    kinds = (".txt", ".jsonl", ".json")
    return [
        *_beginning(incomplete, ["embedded"]),
        *_paths(incomplete, lambda path: path.is_dir() or path.suffix in kinds),
    ]


def recipes(incomplete: str) -> list[str]:
    """Those that come with the package, and YAML files."""
    kinds = (".yaml", ".yml")
    return [*_beginning(incomplete, shipped()), *_paths(incomplete, lambda path: path.is_dir() or path.suffix in kinds)]


def presets(stage: Stage) -> Completer:
    """Of the presets of a stage."""
    return lambda incomplete: _beginning(incomplete, preset_names(stage))


def names(known: Iterable[str]) -> Completer:
    """One of the names, or the last one of several behind a comma."""

    def completed(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [before + comma + name for name in _beginning(last, known)]

    return completed


# By the setting, or by its kind and the setting where several kinds call different things so.
COMPLETERS: dict[str, Completer] = {
    "model": models, "text": texts, "criteria": names(CRITERIA), "criterion": names(CRITERIA),
    "ChooseSettings.method": names(CHOOSING), "RepairSettings.method": names(REPAIRING),
    "WidthSettings.method": names(NARROWING),
}  # fmt: skip


def _beginning(incomplete: str, known: Iterable[str]) -> list[str]:
    return [name for name in known if name.startswith(incomplete)]


def _paths(incomplete: str, wanted: Callable[[Path], bool]) -> list[str]:
    """Files and folders beside what was typed that begin so; a folder that holds no checkpoint with a slash behind."""
    folder, slash, start = incomplete.rpartition("/")
    try:
        here = sorted(Path(folder + slash or ".").expanduser().iterdir())
    except OSError:
        return []
    return [
        folder + slash + path.name + "/" * (path.is_dir() and not (path / "config.json").is_file())
        for path in here
        if path.name.startswith(start) and path.name.startswith(".") == start.startswith(".") and wanted(path)
    ]
