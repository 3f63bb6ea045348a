"""The verb: a checkpoint folder to a repository of the hub, private unless asked otherwise, in one commit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shortlm.artifacts import Record
from shortlm.checkpoint import open_checkpoint
from shortlm.errors import ExportError, library_errors, shown
from shortlm.paths import user_path
from shortlm.report import is_hub_id

CARD = "README.md"


class Push(Record):
    """What goes to the hub, or went there."""

    repository: str
    private: bool
    files: dict[str, int]
    url: str | None = None

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(self.files.values())


def push(
    folder: Path | str, repository: str, public: bool = False, dry_run: bool = False, message: str | None = None
) -> Push:
    """Upload the files of a checkpoint, hidden ones left out; with `dry_run` say what would be uploaded.

    An existing repository keeps its visibility. Raises ModelError for a folder that is no whole checkpoint, ExportError
    for a name that can be none, a missing token, and whatever the hub refuses.
    """
    folder = user_path(folder)
    if not is_hub_id(repository):
        raise ExportError(f"{shown(repository)}: a repository's name looks like owner/name")
    if not folder.is_dir():
        raise ExportError(f"{folder}: is no folder; give the folder of a checkpoint")
    open_checkpoint(str(folder))
    found = Push(repository=repository, private=not public, files=_files(folder))
    if CARD not in found.files:
        raise ExportError(f"{folder}: has no model card ({CARD}), and what was cut should be told; write one")
    return found if dry_run else found.model_copy(update={"url": _uploaded(folder, found, message)})


def _files(folder: Path) -> dict[str, int]:
    """By their paths in the folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    relative = {path.relative_to(folder): path.stat().st_size for path in paths}
    return {path.as_posix(): size for path, size in relative.items() if not any(p.startswith(".") for p in path.parts)}


def _uploaded(folder: Path, push: Push, message: str | None) -> str:
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    with library_errors(ExportError, f"{push.repository}: can't be written on the hub", "log in with: hf auth login"):
        api.whoami()
    files: Any = [CommitOperationAdd(name, str(folder / name)) for name in push.files]
    with library_errors(
        ExportError, f"{push.repository}: can't be written on the hub", "try again; nothing is lost here"
    ):
        repo = api.create_repo(push.repository, private=push.private, exist_ok=True)
        api.create_commit(push.repository, files, commit_message=message or "Upload by shortlm")
    return str(repo)
