"""Python environments that commands make for tools whose packages clash with ours, and keep.

An environment stands in the user's cache folder. It sees the packages of the Python that made it (torch above all,
which is not downloaded again) and has its own versions of what clashes. A tool may be in an interpreter that the user
names instead.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock

from shortlm.errors import ExportError, shortened
from shortlm.paths import user_path

Say = Callable[[str], None]
READY = "ready"  # the file whose presence says that all is installed
LAST_LINES = 6  # of a log, in a message


@dataclass(frozen=True)
class Tool:
    """Packages that are run apart from ours."""

    name: str
    requirements: tuple[str, ...]
    module: str  # what a Python that has it can import
    takes: str  # what making its environment takes, as said beforehand

    @property
    def folder(self) -> Path:
        """Of its environment: another one for other requirements, another Python or another torch."""
        told = [*self.requirements, sys.prefix, sys.version, version("torch")]
        return cache_folder() / "environments" / f"{self.name}-{hashlib.sha256(repr(told).encode()).hexdigest()[:10]}"


def cache_folder() -> Path:
    """Where environments and logs are kept: $SHORTLM_CACHE, or shortlm in the user's cache folder."""
    own = os.environ.get("SHORTLM_CACHE")
    return user_path(own) if own else user_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "shortlm"


def python_with(tool: Tool, given: str | None, say: Say) -> Path:
    """An interpreter that has the tool: the `given` one, else ours, else the environment's, made if it isn't there.

    Raises ExportError if the tool isn't in the given one, or can't be installed (with the log's last lines).
    """
    if given:
        return _given(tool, given)
    if _is_here(tool):
        return Path(sys.executable)
    folder = tool.folder
    python = _python(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / READY).is_file():
            say(f"making an environment for {tool.name} in {folder} ({tool.takes}; once)")
            shutil.rmtree(folder, ignore_errors=True)  # what an interrupted call left
            _make(folder)
            _install(tool, python, folder)
            (folder / READY).touch()
    return python


def _is_here(tool: Tool) -> bool:
    """Whether this Python has it, by an extra of ours or by the user's own doing."""
    try:
        return all(find_spec(module) for module in tool.module.split(", "))
    except ModuleNotFoundError:  # of the package that a module would be in
        return False


def _given(tool: Tool, given: str) -> Path:
    python = user_path(shutil.which(given) or given)
    try:
        found = subprocess.run([python, "-c", f"import {tool.module}"], capture_output=True, text=True)
    except OSError as error:
        raise ExportError(f"--python {given}: can't be run ({error.strerror}); give a Python interpreter") from error
    if found.returncode:
        raise ExportError(
            f"--python {given}: has no {tool.module} ({_last(found.stderr)}); install {' '.join(tool.requirements)} "
            "there, or leave --python out"
        )
    return python


def _python(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _make(folder: Path) -> None:
    """An environment that finds our packages behind its own, links to checkouts (.pth files) among them."""
    venv.create(folder, with_pip=True, symlinks=os.name != "nt")
    ours = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    packages = next(folder.glob("lib*/python*/site-packages"), folder / "Lib" / "site-packages")
    (packages / "ours.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in ours))


def _install(tool: Tool, python: Path, folder: Path) -> None:
    """With the torch that is here: another one may be gigabytes."""
    constraints, log = folder / "constraints.txt", cache_folder() / "logs" / f"{folder.name}-install.txt"
    constraints.write_text(f"torch=={version('torch')}\n")
    command = [python, "-m", "pip", "--disable-pip-version-check", "install", *tool.requirements, "-c", constraints]
    if run_logged(command, log):
        raise ExportError(
            f"{tool.name} can't be installed ({last_lines(log)}); the log is {log}; without network, give --python an "
            f"interpreter that has {' '.join(tool.requirements)}"
        )


def run_logged(command: list[str | Path], log: Path, seen: Say = lambda line: None) -> int:
    """Run a command with all that it says going to `log`, and every line of it to `seen`. Returns its exit status."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("w", encoding="utf-8") as file,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=_variables(),
            text=True, encoding="utf-8", errors="replace",
        ) as process,
    ):  # fmt: skip
        assert process.stdout is not None
        try:
            for line in process.stdout:  # bars end their lines by \r, which text mode reads as lines too
                file.write(line)
                seen(line)
        except BaseException:
            process.terminate()
            raise
    return process.returncode


def _variables() -> dict[str, str]:
    """Ours, without what would put our packages before the environment's."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


def last_lines(log: Path) -> str:
    """What a log ends with, in one line."""
    return _last(log.read_text(encoding="utf-8", errors="replace"))


def _last(text: str) -> str:
    said = [line.strip() for line in text.splitlines() if line.strip()]
    lines = 1 if any(line.startswith("Traceback") for line in said) else LAST_LINES  # which ends with what went wrong
    return shortened(" / ".join(said[-lines:]), 600) or "it said nothing"
