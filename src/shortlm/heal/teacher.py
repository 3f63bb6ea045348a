"""The uncut model that a shortened one learns from, and which of its blocks each block of the student was."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from shortlm.artifacts import Manifest, ModelFacts, manifest_of
from shortlm.checkpoint import locate
from shortlm.errors import ModelError
from shortlm.model import ModelFiles, block_count, facts_from_config, open_files, vocabulary
from shortlm.paths import user_path
from shortlm.recipe import ModelSettings, PhaseSettings


class Teacher(NamedTuple):
    """The files of the uncut model, and for every block of the student its index there."""

    files: ModelFiles
    blocks: list[int]

    def open(self) -> Any:
        """The model, frozen."""
        return self.files.open(streamed=False).model


def find_teacher(files: ModelFiles, settings: PhaseSettings) -> Teacher:
    """The teacher of the student in `files`, before any weight is read.

    The student's manifest names both; without one, a teacher with as many blocks is needed. Raises ModelError.
    """
    manifest = manifest_of(files.checkpoint.folder)
    taught = open_files(teacher_of(files.checkpoint.folder, files.settings, settings))
    name = taught.settings.model
    if vocabulary(taught.config) != vocabulary(files.config):
        raise ModelError(
            f"{name}: has a vocabulary of {vocabulary(taught.config)}, the student {vocabulary(files.config)}; "
            "the teacher must be the model that was cut"
        )
    count, own = block_count(taught.config), block_count(files.config)
    blocks = manifest.blocks if manifest else list(range(own))
    if max(blocks) >= count or (not manifest and count != own):
        raise ModelError(
            f"{name}: has {count} blocks, and the student's are {blocks} of the uncut model; give --teacher"
        )
    return Teacher(taught, blocks)


def teacher_of(folder: Path, opened_by: ModelSettings, settings: PhaseSettings) -> ModelSettings:
    """The teacher that was given, or the model that the student in `folder` was cut from. Raises ModelError."""
    if settings.teacher:
        return opened_by.model_copy(update={"model": settings.teacher, "revision": None})
    return uncut(folder, opened_by)


def uncut(folder: Path, opened_by: ModelSettings) -> ModelSettings:
    """The model before all steps, by the student's manifest; old ones may begin with a cut one, and lead further back.

    Raises ModelError.
    """
    manifest, passed = manifest_of(folder), list[Path]()
    if manifest is None:
        raise ModelError(f"{folder}: has no manifest that names the uncut model; give --teacher MODEL")
    while True:
        passed.append(folder.resolve())
        found = _base(manifest, folder, opened_by)
        before, folder = folder, _located(found, folder)
        if folder.resolve() in passed:
            raise ModelError(f"{before}: its manifest leads back to this folder itself; give --teacher MODEL")
        manifest = manifest_of(folder)
        if manifest is None:
            return found


def _located(model: ModelSettings, student: Path) -> Path:
    try:
        return locate(model.model, model.revision, weights=False)[0]
    except ModelError as error:
        raise ModelError(f"{student}: the uncut model that its manifest names: {error}, or give --teacher") from error


def _base(manifest: Manifest, folder: Path, opened_by: ModelSettings) -> ModelSettings:
    """The model before the steps to the one in `folder`: a hub's, or the first place where one of its size is."""
    facts, kept_at = manifest.base, manifest.base_path
    named = opened_by.model_copy(update={"model": facts.name, "revision": facts.revision})
    if facts.revision or facts.name == "embedded":
        return named
    # The folder may have been moved together with its base, or the name have been given from another folder.
    places = [*([user_path(kept_at)] if kept_at else []), folder.parent / user_path(facts.name), user_path(facts.name)]
    local = [place for place in dict.fromkeys(places) if place.is_dir()]
    for place in local:
        model = opened_by.model_copy(update={"model": str(place), "revision": None})
        if _is(model, facts):
            return model
    if not local and kept_at is None:
        return named  # of a manifest that doesn't tell a hub id from a path
    tried = next(iter(local), places[0])
    what = f"{tried} is another" if local else f"{tried} is not there"
    itself = any(place.resolve() == folder.resolve() for place in local)
    what = "that leads back to this folder itself" if itself else what
    raise ModelError(f"{folder}: its manifest names {facts.name} as the uncut model, and {what}; give --teacher MODEL")


def _is(model: ModelSettings, facts: ModelFacts) -> bool:
    """Whether the model has the blocks and parameters of the one that was cut."""
    try:
        found = facts_from_config(model)
    except ModelError:  # there is none that can be read
        return False
    return (found.n_blocks, found.parameters) == (facts.n_blocks, facts.parameters)
