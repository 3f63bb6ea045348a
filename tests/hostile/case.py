"""A case: files that are made, a command, and whether it may succeed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HUGE = "9" * 5000
DEEP = "[" * 100_000


@dataclass(frozen=True)
class World:
    """Sound inputs that cases start from."""

    folder: Path  # llama/ and qwen2/ (checkpoints), scores.json, plan.json, ..., text.txt, ids.json

    def __getitem__(self, name: str) -> Path:
        return self.folder / name


@dataclass(frozen=True)
class Case:
    """`make` writes its inputs into an empty folder `in`; in `args`, {w} is the world's folder and {in} that one.

    The output, if any, is `out`. `valid`: it may also succeed, which is not known beforehand.
    """

    name: str
    args: list[str]
    make: Callable[[World, Path], object] = lambda world, folder: None
    valid: bool = False
    long: bool = False  # more than two seconds, or a large file


def written(name: str, content: str | bytes) -> Callable[[World, Path], object]:
    """Makes one file."""
    raw = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    return lambda world, folder: (folder / name).write_bytes(raw)


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values in JSON; of a list the first and the last entry."""
    if at:
        yield at
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*at, key))
    if isinstance(value, list):
        for i in sorted({0, len(value) - 1} if value else ()):
            yield from places(value[i], (*at, i))


def replaced(value: Any, at: tuple[Any, ...], raw: str) -> str:
    """JSON of `value` with what stands at `at` replaced by `raw` as it is, which need not be JSON."""
    copy = json.loads(json.dumps(value))
    inner = copy
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = "<here>"
    return json.dumps(copy).replace('"<here>"', raw)


def some(items: list[Case], count: int, seed: str) -> list[Case]:
    """At most `count` of them, the same ones every time, in order."""
    picked = sorted(random.Random(seed).sample(range(len(items)), min(count, len(items))))
    return [items[i] for i in picked]
