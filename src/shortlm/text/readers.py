"""Sources of training data, read one item after the other, from any position that was given before.

An item is a text (a document, or a piece of running text) or a record (a dictionary). Every item comes with the
position behind it, which is JSON, so that training goes on exactly there after a stop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from shortlm.documents import BOM, RECORDS, is_json_list, parse_json, read_json_list
from shortlm.embedded import documents as embedded_documents
from shortlm.errors import TextError, reason, shortened
from shortlm.paths import is_text, user_path
from shortlm.recipe import SourceSettings

PIECE = 2**14  # bytes of running text that are tokenized together, up to the next blank line
LONGEST_PIECE = 2**18
HALF = "holds half of a surrogate pair (such as \\ud800), which is no text; mend it, or leave the record out"
Items = Iterator[tuple[Any, Any]]


@dataclass(frozen=True)
class Reader:
    """`read(position)` gives (item, position behind it); None is the beginning. `place(position)` names what is there.

    `fits(position)` is False for what can be no position.
    """

    name: str
    read: Callable[[Any], Items]
    place: Callable[[Any], str]
    fits: Callable[[Any], bool]
    running: bool = False  # pieces of one running text, nothing stands between them


def open_reader(settings: SourceSettings) -> Reader:
    """The source that `settings` name. Raises TextError if there is none of that name."""
    name, path = settings.data, user_path(settings.data)
    if name == "embedded":
        return _counted(name, lambda: embedded_documents(settings.seed), "document")
    if path.is_file() and path.suffix in (".jsonl", ".json"):
        return _json_records(path) if is_json_list(path) else _json_lines(path)
    if path.is_file():
        return Reader(str(path), lambda at: _pieces(path, at or 0), lambda at: f"byte {at or 0}", _in(path), True)
    if path.suffix in (".txt", ".jsonl", ".json") or path.exists() or name.startswith((".", "/", "~")):
        raise TextError(f"{name}: no such data file; a .jsonl, .json or .txt file or a hub data set is needed")
    return Reader(name, lambda at: _hub_rows(settings, at), lambda at: "a record", lambda at: isinstance(at, dict))


def text_of(item: Any, field: str, source: str, place: str) -> str:
    """The text of an item. Raises TextError naming the fields there are."""
    text = item.get(field) if isinstance(item, dict) else item
    if not isinstance(text, str):
        raise TextError(
            f"{source}: {place} has no text field '{field}' ({fields_of(item)}); choose one as {source}:field=..."
        )
    if not is_text(text):
        raise TextError(f"{source}: {place} {HALF}")
    return text


def fields_of(item: Any) -> str:
    """What is said of a record that lacks a field: the first of those that it has."""
    if not isinstance(item, dict):
        return f"it is {json_name(item)}"
    names = [shortened(str(name), 40) for name in islice(item, 10)]
    more = f" and {len(item) - 10:,} more" if len(item) > 10 else ""
    return f"fields: {', '.join(names) or 'none'}{more}"


def json_name(value: Any) -> str:
    """What a value is called in JSON."""
    names = {type(None): "null", bool: "true or false", dict: "an object", list: "a list", str: "a text"}
    return names.get(type(value), "a number")


def _counted(name: str, items: Callable[[], Iterator[Any]], what: str) -> Reader:
    """Positions are numbers of items."""

    def read(position: Any) -> Items:
        start = position or 0
        yield from ((item, count) for count, item in enumerate(islice(items(), start, None), start=start + 1))

    return Reader(name, read, lambda at: f"{what} {(at or 0) + 1}", lambda at: _is_count(at))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _in(path: Path) -> Callable[[Any], bool]:
    """Positions are bytes of the file."""
    return lambda at: _is_count(at) and at <= path.stat().st_size


def _json_records(path: Path) -> Reader:
    return _counted(str(path), lambda: iter(read_json_list(path, TextError)), "record")


def _json_lines(path: Path) -> Reader:
    def read(position: Any) -> Items:
        with path.open("rb") as file:
            file.seek(position or 0)
            while line := file.readline():
                if line.removeprefix(BOM).strip():
                    start = file.tell() - len(line)
                    yield _record(line, path, start), file.tell()

    return Reader(str(path), read, lambda at: f"line {_line_number(path, at or 0)}", _in(path))


def _record(line: bytes, path: Path, start: int) -> Any:
    try:
        return parse_json(line.removeprefix(BOM), "", TextError)
    except TextError as error:
        place, why = f"line {_line_number(path, start)}", str(error).removeprefix(": ")
        raise TextError(f"{path}: {place} {why}; {RECORDS}") from error


def _line_number(path: Path, position: int) -> int:
    """Of the first line behind a position that is not blank, counted from 1."""
    with path.open("rb") as file:
        before = 0
        while position and (part := file.read(min(position, 2**20))):
            before, position = before + part.count(b"\n"), position - len(part)
        while (line := file.readline(2**16)) and not line.strip():
            before += line.count(b"\n")
    return before + 1


def _pieces(path: Path, position: int) -> Items:
    """Running text up to a blank line; where there is none for long, up to the end of a line or a word."""
    with path.open("rb") as file:
        file.seek(position)
        held = b""
        while line := file.readline(LONGEST_PIECE - len(held)):
            held += line
            if len(held) >= LONGEST_PIECE:
                held = _put_back(file, held)
            elif len(held) < PIECE or line.strip():
                continue
            yield _decoded(held, path, file.tell()), file.tell()
            held = b""
        if held:
            yield _decoded(held, path, file.tell()), file.tell()


def _put_back(file: BinaryIO, held: bytes) -> bytes:
    """`held` up to a good place to cut it, in its second half; what is behind it will be read again."""
    line = held.rfind(b"\n", len(held) // 2) + 1
    word = max(held.rfind(space, len(held) // 2) for space in (b" ", b"\t"))  # tokens begin with the space
    end = line or (word if word > 0 else _whole_characters(held))
    file.seek(end - len(held), 1)
    return held[:end]


def _whole_characters(held: bytes) -> int:
    """Where the last character begins; it may go on behind `held`. A character has at most 4 bytes."""
    return next((end for end in range(len(held) - 1, len(held) - 5, -1) if held[end] & 0xC0 != 0x80), len(held))


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
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, AttributeError) as error:
        raise TextError(
            f"{settings.data}: is no file here and can't be streamed from the hub ({reason(error)}); "
            "check the name and the network, or give a local file"
        ) from error
