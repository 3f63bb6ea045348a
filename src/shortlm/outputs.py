"""Outputs that appear whole under their final name, or not at all.

Files and folders are written beside their target under a hidden name, flushed to disk, then renamed.
Nothing that exists is replaced unless asked (`force`).
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from shortlm.errors import OutputError

UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR}
UNWRITABLE |= {errno.EEXIST, errno.EFBIG, errno.ENAMETOOLONG}


def refuse_existing(target: Path, force: bool) -> None:
    """Raise OutputError if `target` holds something that would be lost. An empty folder is free to use."""
    if force or not target.exists():
        return
    if target.is_dir() and not any(target.iterdir()):
        return
    kind = "folder exists and is not empty" if target.is_dir() else "file exists"
    raise OutputError(f"{target}: the output {kind}; choose another --out, or give --force to replace it")


@contextmanager
def whole_file(target: Path | str, force: bool = False) -> Generator[Path, None, None]:
    """Yield a temporary path beside `target`; on success it becomes `target`, on any failure it vanishes."""
    target = Path(target)
    if target.is_dir():
        raise OutputError(f"{target}: is a folder, a file name is needed; give --out a file")
    refuse_existing(target, force)
    with _explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        part = _beside(target)
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
    target = Path(target)
    if target.exists() and not target.is_dir():
        raise OutputError(f"{target}: is a file, a folder is needed; choose another --out")
    refuse_existing(target, force)
    with _explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
        part.chmod(0o777 & ~_umask())
        try:
            yield part
            for path in part.rglob("*"):
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
    try:
        yield
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        reason = os.strerror(error.errno).lower()
        raise OutputError(f"{target}: can't be written ({reason}); free some space or choose another --out") from error


def _beside(target: Path) -> Path:
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
    os.close(handle)
    os.chmod(name, 0o666 & ~_umask())
    return Path(name)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


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
        os.rename(part, target)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
    os.rename(target, aside / "old")
    try:
        os.rename(part, target)
    except BaseException:
        os.rename(aside / "old", target)
        raise
    finally:
        if target.exists():
            shutil.rmtree(aside, ignore_errors=True)
