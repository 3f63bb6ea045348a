"""Outputs that appear whole under their final name, or not at all.

Files and folders are written beside their target under a hidden name, flushed to disk, then renamed.
Nothing that exists is replaced unless asked (`force`).
"""

from __future__ import annotations

import errno
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from shortlm.errors import OutputError
from shortlm.paths import user_path

UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR}
OURS = {"manifest.json": b'"Manifest"', "healing.json": b'"Healing"'}  # what every folder of ours holds one of
UNWRITABLE |= {errno.EEXIST, errno.EFBIG, errno.ENAMETOOLONG}


def refuse_existing(target: Path, force: bool) -> None:
    """Raise OutputError if `target` holds something that would be lost. An empty folder is free to use.

    `force` replaces a file, or a folder that shortlm wrote (see OURS), never another folder.
    """
    if not target.exists():
        return
    if target.is_dir():
        _refuse_folder(target, force)
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
    if not any((target / file).is_file() and mark in (target / file).read_bytes()[:200] for file, mark in OURS.items()):
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
    target = user_path(target)
    target = target.resolve() if target.is_symlink() else target
    if target.exists() and not target.is_dir():
        raise OutputError(f"{target}: is a file, a folder is needed; choose another --out")
    with _explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(target)
        refuse_existing(target, force)
        part = _folder_beside(target, "partial")
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


def _give_usual_mode(path: Path) -> None:
    """That of the umask: libraries (safetensors) write by temporary files that only their owner may read."""
    if path.is_file() and not path.is_symlink():
        path.chmod(0o666 & ~_umask())


def _flush(path: Path) -> None:
    """fsync, so that a rename never shows a name whose bytes are not on disk yet."""
    with suppress(PermissionError):  # a read-only file carried over from the source
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _folder_beside(target: Path, kind: str) -> Path:
    """A hidden folder whose name tells the target, this machine and this process."""
    prefix = f".{target.name}.{platform.node()}-{os.getpid()}."
    path = Path(tempfile.mkdtemp(prefix=prefix, suffix=f".{kind}", dir=target.parent))
    path.chmod(0o777 & ~_umask())
    return path


def _clear_leftovers(target: Path) -> None:
    """Remove what killed processes of this machine left beside the target; an only copy set aside is put back."""
    pattern = re.compile(re.escape(f".{target.name}.{platform.node()}-") + r"(\d+)\..*\.(partial|old)")
    for path in target.parent.iterdir():
        match = pattern.fullmatch(path.name)
        if match is None or _alive(int(match[1])):
            continue
        if match[2] == "old" and not target.exists() and (path / "old").exists():
            (path / "old").rename(target)
        shutil.rmtree(path, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _swap(part: Path, target: Path) -> None:
    """Rename `part` to `target`; an older `target` is set aside first and put back if the rename fails."""
    if not target.exists():
        part.rename(target)
        return
    aside = _folder_beside(target, "old")
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
