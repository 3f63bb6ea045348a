"""Runs one case in this process and says what is wrong with how it went."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from typer.testing import CliRunner

from hostile.case import Case, World
from shortlm.cli import app

SECONDS, PER_MB, GROWTH, LONGEST = 20, 2, 1_500_000, 1_100  # kB of memory, characters of a message
OURS = re.compile(r"schedule: |no text is named|\w+: |.* takes turns")  # what commands say on their way


class TooSlow(BaseException):
    """Past every `except Exception` on its way."""


def fault(case: Case, world: World, folder: Path) -> str | None:
    """What is wrong, or None."""
    inputs = folder / "in"
    inputs.mkdir(parents=True)
    case.make(world, inputs)
    before = _digest(inputs)
    args = [a.replace("{w}", str(world.folder)).replace("{in}", str(inputs)) for a in case.args]
    held = (
        sum(path.stat().st_blocks for path in inputs.rglob("*") if path.is_file()) * 512
    )  # a sparse file holds little
    limit = SECONDS + PER_MB * held // 10**6
    with _inside(folder), _time_limit(limit), _memory() as grown:
        try:
            result = CliRunner().invoke(app, args, prog_name="shortlm")
        except TooSlow:
            return f"ran for more than {limit} s"
    if grown and grown[0] > GROWTH:
        return f"took {grown[0]:,} kB"
    if result.exception and not isinstance(result.exception, SystemExit):
        return "traceback: " + _last(result.exception)
    if result.exit_code != 2 and not (case.valid and result.exit_code == 0):
        return f"exit code {result.exit_code}: {result.output[-300:]!r}"
    if result.exit_code == 2 and (wrong := _message(result.stderr)):
        return wrong
    if _digest(inputs) != before:
        return "inputs changed"
    return _left_behind(case, folder, result.exit_code)


def _message(stderr: str) -> str | None:
    *others, line = stderr.strip().splitlines() or [""]
    if not line.startswith("shortlm: "):
        return f"no line of ours: {stderr[-300:]!r}"
    if len(line) > LONGEST:
        return f"a message of {len(line):,} characters"
    foreign = [other for other in others if not OURS.match(other)]
    return f"others' lines before ours: {foreign[0][:200]!r}" if foreign else None


def _left_behind(case: Case, folder: Path, code: int) -> str | None:
    allowed = {"in", "out"} if code == 0 or case.args[0] in ("run", "compare", "heal") else {"in"}
    found = {path.name for path in folder.iterdir()} - allowed
    found |= {path.name for path in folder.rglob(".*") if path.name.endswith((".partial", ".old"))}
    found |= {path.name for path in (folder.parent / "scratch").iterdir()}
    return f"left behind: {sorted(found)[:3]}" if found else None


def _last(error: BaseException) -> str:
    """The error, and the last line of ours on its way."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/shortlm/" in f.filename]
    at = f"{frames[-1].filename.rpartition('/shortlm/')[2]}:{frames[-1].lineno}" if frames else "?"
    return f"{type(error).__name__}: {str(error)[:200]!r} at {at}"


def _digest(folder: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        found.update(os.fsencode(path))
        if path.is_file() and path.stat().st_size < 2**26:
            found.update(path.read_bytes())
    return found.hexdigest()


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """In this folder, with a folder for temporary files that no other process uses."""
    here, scratch, before = Path.cwd(), folder.parent / "scratch", tempfile.tempdir
    scratch.mkdir(exist_ok=True)
    os.chdir(folder)
    tempfile.tempdir = str(scratch)
    try:
        yield
    finally:
        os.chdir(here)
        tempfile.tempdir = before


@contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TooSlow

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


@contextmanager
def _memory() -> Iterator[list[int]]:
    """How much the resident memory has grown at its peak, in kB; Linux only."""
    grown: list[int] = []
    clear = Path("/proc/self/clear_refs")
    if not clear.exists():
        yield grown
        return
    clear.write_text("5")  # the peak starts anew
    before = _status("VmRSS")
    yield grown
    grown.append(_status("VmHWM") - before)


def _status(field: str) -> int:
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith(field + ":")))
