"""Hidden names for what is half-written, and the clearing of what killed processes left under them.

A name tells the target, the machine and the process: `.target.machine-pid.random.partial`. What a process that lives
no more left on this machine can go; an original that it had set aside (`.old`) is put back.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

RANDOM = r"\.[a-z0-9_]+"  # as tempfile makes it


def hidden_folder(target: Path, kind: str) -> Path:
    """A new folder beside `target`; `kind` is partial or old."""
    path = Path(
        tempfile.mkdtemp(prefix=f".{target.name}.{_here()}-{os.getpid()}.", suffix=f".{kind}", dir=target.parent)
    )
    path.chmod(0o777 & ~umask())
    return path


def hidden_file(target: Path) -> Path:
    """A new empty file beside `target`."""
    prefix = f".{target.name}.{_here()}-{os.getpid()}."
    handle, name = tempfile.mkstemp(prefix=prefix, suffix=".partial", dir=target.parent)
    os.close(handle)
    os.chmod(name, 0o666 & ~umask())
    return Path(name)


def clear_leftovers(folder: Path) -> None:
    """Remove what killed processes of this machine left in `folder`; an only copy set aside is put back."""
    pattern = re.compile(rf"\.(.+)\.{re.escape(_here())}-(\d+){RANDOM}\.(partial|old)")
    for path in _files(folder):
        match = pattern.fullmatch(path.name)
        if match is None or _alive(int(match[2])):
            continue
        target = folder / match[1]
        if match[3] == "old" and not os.path.lexists(target) and (path / "old").exists():
            with suppress(OSError):  # another process was faster
                (path / "old").rename(target)
        _remove(path)


@contextmanager
def scratch_folder(what: str) -> Generator[Path, None, None]:
    """A folder in the system's place for temporary files, as long as it is needed; `what` names it for people."""
    home = Path(tempfile.gettempdir())
    pattern = re.compile(rf"shortlm-[a-z]+\.{re.escape(_here())}-(\d+){RANDOM}")
    for path in _files(home):
        if (match := pattern.fullmatch(path.name)) and not _alive(int(match[1])):
            _remove(path)
    with tempfile.TemporaryDirectory(prefix=f"shortlm-{what}.{_here()}-{os.getpid()}.") as folder:
        yield Path(folder)


def _here() -> str:
    return platform.node()


def _files(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:  # one that may be written to but not listed
        return []


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with suppress(OSError):
        path.unlink()


def umask() -> int:
    """The bits that new files don't get; the system tells it only when it is set."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
