"""Checkpoints of training: those that are complete bear a mark with the position in the data and all sizes.

What bears a mark and can't be read is an error, never passed over: training would silently begin earlier.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field

from shortlm.heal.batches import Position
from shortlm.heal.remains import damaged, read_left
from shortlm.outputs import write_text

COMPLETE = "complete.json"
NAME = re.compile(r"checkpoint-(\d{1,12})")


@dataclass(frozen=True)
class Mark:
    """The content of `complete.json`. `files`: the bytes of every file of the checkpoint."""

    position: Position
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    files: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint of training, the position in the data, and the seconds spent."""

    folder: Path
    position: Position
    seconds: float


def hint_for(checkpoint: Path) -> str:
    """What to do about one that is damaged."""
    return f"delete {checkpoint} to go on from the checkpoint before it, or from the beginning"


def checkpoint_folders(phase: Path) -> dict[int, Path]:
    """Every checkpoint in a phase's folder, by its step, complete or not."""
    return {int(match[1]): path for path in phase.glob("checkpoint-*") if (match := NAME.fullmatch(path.name))}


def complete_checkpoints(phase: Path) -> list[Checkpoint]:
    """Those that bear the mark, by step. Raises HealError if one of them is damaged."""
    found = sorted(checkpoint_folders(phase).items())
    return [_read(step, folder) for step, folder in found if (folder / COMPLETE).exists()]


def last_checkpoint(phase: Path) -> Checkpoint | None:
    """The latest complete checkpoint in a phase's folder."""
    return next(reversed(complete_checkpoints(phase)), None)


def _read(step: int, folder: Path) -> Checkpoint:
    path = folder / COMPLETE
    mark = read_left(path, Mark, hint_for(folder))
    if mark.position.step != step:
        raise damaged(path, f"it tells of step {mark.position.step}", hint_for(folder))
    for name, size in mark.files.items():
        file = folder / name
        if not file.is_file():
            raise damaged(file, "it is not there", hint_for(folder))
        if file.stat().st_size != size:
            raise damaged(file, f"it has {file.stat().st_size:,} bytes, not {size:,}", hint_for(folder))
    return Checkpoint(folder, mark.position, mark.seconds)


def mark_complete(folder: Path, position: Position, seconds: float) -> None:
    """All is written: first to disk with it, so that the mark never stands beside files that are not there yet."""
    sizes = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            sizes[path.relative_to(folder).as_posix()] = path.stat().st_size
            _flush(path)
    write_text(folder / COMPLETE, json.dumps(asdict(Mark(position, seconds, sizes))))


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def forget(phase: Path, kept: set[int | None]) -> None:
    """Remove the checkpoints of other steps, their marks first."""
    for step, folder in checkpoint_folders(phase).items():
        if step not in kept:
            (folder / COMPLETE).unlink(missing_ok=True)
            shutil.rmtree(folder)


def clear_incomplete(phase: Path) -> None:
    """Remove checkpoints that a killed process did not finish."""
    for folder in checkpoint_folders(phase).values():
        if not (folder / COMPLETE).exists():
            shutil.rmtree(folder)
