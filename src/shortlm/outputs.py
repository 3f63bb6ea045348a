"""Outputs that appear whole under their final name, or not at all.

Files and folders are written beside their target under a hidden name, flushed to disk, then renamed.
Nothing that exists is replaced unless asked (`force`).
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from shortlm.errors import OutputError
from shortlm.leftovers import clear_leftovers, hidden_file, hidden_folder, umask
from shortlm.paths import beginning, user_path

UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR}
OURS = {"manifest.json": b'"Manifest"', "healing.json": b'"Healing"'}  # what every folder of ours holds one of
UNWRITABLE |= {errno.EEXIST, errno.EFBIG, errno.ENAMETOOLONG, errno.ENOENT, errno.ELOOP, errno.EINVAL}


def output_path(out: Path | str | None) -> Path:
    """The folder that a verb writes. Raises OutputError where none is given."""
    if out is None:
        raise OutputError("out: give the folder of the result")
    return user_path(out)


def refuse_existing(target: Path, force: bool) -> None:
    """Raise OutputError if `target` holds something that would be lost. An empty folder is free to use.

    `force` replaces a file, or a folder that shortlm wrote (see OURS), never another folder.
    """
    if not target.exists():
        return
    if target.is_dir():
        _refuse_folder(target, force)
    elif not target.is_file():
        raise OutputError(f"{target}: is no regular file; choose another --out")
    elif not force:
        raise OutputError(f"{target}: the output file exists; choose another --out, or give --force to replace it")


def _refuse_folder(target: Path, force: bool) -> None:
    here = Path.cwd()
    if target.resolve() in (here, *here.parents):
        raise OutputError(f"{target}: is the current folder, or holds it; choose another --out")
    if not any(target.iterdir()):
        return
    if not force:
        raise OutputError(
            f"{target}: the output folder exists and is not empty; choose another --out, or give --force to replace it"
        )
    if not any((target / file).is_file() and mark in beginning(target / file) for file, mark in OURS.items()):
        raise OutputError(
            f"{target}: holds files that shortlm did not write, which --force won't delete; choose another --out"
        )


@contextmanager
def whole_file(target: Path | str, force: bool = False) -> Generator[Path, None, None]:
    """Yield a temporary path beside `target`; on success it becomes `target`, on any failure it vanishes."""
    target = user_path(target)
    if target.is_dir():
        raise OutputError(f"{target}: is a folder, a file name is needed; give --out a file")
    refuse_existing(target, force)
    with _explained(target):
        target = Path(os.path.realpath(target)) if target.is_symlink() else target  # a link stays a link
        target.parent.mkdir(parents=True, exist_ok=True)
        clear_leftovers(target.parent)
        part = hidden_file(target)
        try:
            yield part
            _flush(part)
            os.replace(part, target)
            _flush(target.parent)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def whole_folder(target: Path | str, force: bool = False) -> Generator[Path, None, None]:
    """Yield a temporary folder beside `target`; on success it becomes `target`, on any failure it vanishes."""
    target = user_path(target)
    target = Path(os.path.realpath(target)) if target.is_symlink() else target
    if target.exists() and not target.is_dir():
        raise OutputError(f"{target}: is a file, a folder is needed; choose another --out")
    with _explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        clear_leftovers(target.parent)
        refuse_existing(target, force)
        part = hidden_folder(target, "partial")
        try:
            yield part
            for path in part.rglob("*"):
                _give_usual_mode(path)
                _flush(path)
            _swap(part, target)
            _flush(target.parent)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def write_text(target: Path | str, text: str, force: bool = False) -> Path:
    """Write `text` (UTF-8) to `target`, whole or not at all."""
    with whole_file(target, force) as part:
        part.write_text(text, encoding="utf-8")
    return Path(target)


@contextmanager
def _explained(target: Path) -> Generator[None, None, None]:
    """The system's errors as one line about `target`, unless they name another file (a source that can't be read)."""
    try:
        yield
    except OSError as error:
        if error.errno not in UNWRITABLE or not _about(target, error):
            raise
        reason = os.strerror(error.errno).lower()
        raise OutputError(f"{target}: can't be written ({reason}); free some space or choose another --out") from error


def _about(target: Path, error: OSError) -> bool:
    """Whether the error names no file (as a disk that is full), a folder above the target, or what is half-written."""
    if not isinstance(error.filename, (str, os.PathLike)):
        return True
    path, home = Path(os.path.abspath(error.filename)), Path(os.path.abspath(target.parent))
    if home.is_relative_to(path):
        return True
    below = path.relative_to(home).parts[0] if path.is_relative_to(home) else ""
    return below == target.name or below.startswith(f".{target.name}.")


def _give_usual_mode(path: Path) -> None:
    """That of the umask: libraries (safetensors) write by temporary files that only their owner may read."""
    if path.is_file() and not path.is_symlink():
        path.chmod(0o666 & ~umask())


def _flush(path: Path) -> None:
    """fsync, so that a rename never shows a name whose bytes are not on disk yet."""
    with suppress(PermissionError):  # a read-only file carried over from the source
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _swap(part: Path, target: Path) -> None:
    """Rename `part` to `target`; an older `target` is set aside first and put back if the rename fails."""
    if not target.exists():
        part.rename(target)
        return
    aside = hidden_folder(target, "old")
    try:
        target.rename(aside / "old")
        try:
            part.rename(target)
        except BaseException:
            (aside / "old").rename(target)
            raise
    finally:
        if target.exists():
            shutil.rmtree(aside, ignore_errors=True)
