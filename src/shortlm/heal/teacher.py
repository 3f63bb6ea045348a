"""The uncut model that a shortened one learns from, and which of its blocks each block of the student was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shortlm.artifacts import Manifest
from shortlm.errors import ModelError
from shortlm.model import ModelFiles, open_files
from shortlm.recipe import PhaseSettings


def open_teacher(files: ModelFiles, settings: PhaseSettings) -> tuple[Any, list[int]]:
    """The frozen teacher, and for every block of the student its index there.

    The student's manifest names both; without one, a teacher with as many blocks is needed. Raises ModelError.
    """
    path = files.checkpoint.folder / "manifest.json"
    manifest = Manifest.load(path) if path.is_file() else None
    name, revision = (settings.teacher, None) if settings.teacher else uncut(files.checkpoint.folder)
    taught = open_files(files.settings.model_copy(update={"model": name, "revision": revision}))
    if taught.config.vocab_size != files.config.vocab_size:
        raise ModelError(
            f"{name}: has a vocabulary of {taught.config.vocab_size}, the student {files.config.vocab_size}; "
            "the teacher must be the model that was cut"
        )
    count, own = taught.config.num_hidden_layers, files.config.num_hidden_layers
    blocks = manifest.blocks if manifest else list(range(own))
    if max(blocks) >= count or (not manifest and count != own):
        raise ModelError(
            f"{name}: has {count} blocks, and the student's are {blocks} of the uncut model; give --teacher"
        )
    return taught.open(streamed=False).model, blocks


def uncut(folder: Path) -> tuple[str, str | None]:
    """The model that was cut and its revision, by the student's manifest, followed back through earlier cuts."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise ModelError(f"{folder}: has no manifest that names the uncut model; give --teacher MODEL")
    model = Manifest.load(path).plan.model
    earlier = Path(model.name).expanduser()
    return uncut(earlier) if (earlier / "manifest.json").is_file() else (model.name, model.revision)
