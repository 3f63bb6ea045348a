"""Sources of training data, read one item after the other, from any position that was told before.

An item is a text (a document, or a piece of running text) or a record (a dictionary). Every item comes with the
position behind it, which is JSON, so that training goes on exactly there after a stop.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from shortlm.embedded import documents as embedded_documents
from shortlm.errors import TextError
from shortlm.recipe import SourceSettings

PIECE = 2**14  # bytes of running text that are tokenized together, up to the next blank line
LONGEST_PIECE = 2**18
Items = Iterator[tuple[Any, Any]]


@dataclass(frozen=True)
class Reader:
    """`read(position)` gives (item, position behind it); None is the beginning."""

    name: str
    read: Callable[[Any], Items]
    running: bool = False  # pieces of one running text, nothing stands between them


def open_reader(settings: SourceSettings) -> Reader:
    """The source that `settings` name. Raises TextError if there is none of that name."""
    name, path = settings.data, Path(settings.data).expanduser()
    if name == "embedded":
        return Reader(name, lambda at: _counted(embedded_documents(settings.seed), at))
    if path.is_file() and path.suffix == ".jsonl":
        return Reader(str(path), lambda at: _json_lines(path, at or 0))
    if path.is_file() and path.suffix == ".json":
        return Reader(str(path), lambda at: _counted(iter(_json_list(path)), at))
    if path.is_file():
        return Reader(str(path), lambda at: _pieces(path, at or 0), running=True)
    if path.suffix in (".txt", ".jsonl", ".json") or path.exists() or name.startswith((".", "/", "~")):
        raise TextError(f"{name}: no such data file; a .jsonl, .json or .txt file or a hub data set is needed")
    return Reader(name, lambda at: _hub_rows(settings, at))


def text_of(item: Any, field: str, name: str) -> str:
    """The text of an item. Raises TextError naming the fields there are."""
    if isinstance(item, str):
        return item
    if not isinstance(item, dict) or not isinstance(item.get(field), str):
        fields = ", ".join(item) if isinstance(item, dict) else "none"
        raise TextError(
            f"{name}: a record has no text field '{field}' (fields: {fields}); choose one as {name}:field=..."
        )
    return item[field]


def _counted(items: Iterator[Any], position: int | None) -> Items:
    start = position or 0
    for count, item in enumerate(islice(items, start, None), start=start + 1):
        yield item, count


def _json_lines(path: Path, position: int) -> Items:
    with path.open("rb") as file:
        file.seek(position)
        while line := file.readline():
            if line.strip():
                yield _record(line, path, file.tell() - len(line)), file.tell()


def _record(line: bytes, path: Path, position: int) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise TextError(f"{path}: at byte {position} is no JSON; a .jsonl file has one object per line") from error


def _json_list(path: Path) -> list[Any]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise TextError(f"{path}: is not JSON ({error})") from error
    if not isinstance(content, list):
        raise TextError(f"{path}: holds a {type(content).__name__}, a list of records is needed")
    return content


def _pieces(path: Path, position: int) -> Items:
    with path.open("rb") as file:
        file.seek(position)
        held = b""
        while line := file.readline():
            held += line
            if len(held) >= LONGEST_PIECE or (len(held) >= PIECE and not line.strip()):
                yield _decoded(held, path, file.tell()), file.tell()
                held = b""
        if held:
            yield _decoded(held, path, file.tell()), file.tell()


def _decoded(raw: bytes, path: Path, end: int) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        where = end - len(raw) + error.start
        raise TextError(f"{path}: is not UTF-8 text (byte {where}); convert it first") from error


def _hub_rows(settings: SourceSettings, position: Any) -> Items:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise TextError(
            f"{settings.data}: is no file here, and hub data sets need an extra (pip install 'shortlm[heal]'); "
            "or give a local file"
        ) from error
    try:
        rows: Any = load_dataset(settings.data, settings.subset, split=settings.split, streaming=True)
        if position is not None:
            rows.load_state_dict(position)
        for row in rows:
            yield row, rows.state_dict()
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise TextError(
            f"{settings.data}: is no file here and can't be streamed from the hub ({reason}); "
            "check the name and the network, or give a local file"
        ) from error
