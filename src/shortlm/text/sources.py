"""Where text comes from: the embedded world, a .txt or .jsonl file, or a hub data set.

A source is read piece by piece and only as far as it is needed; a hub data set is streamed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shortlm.embedded import documents as embedded_documents
from shortlm.errors import TextError
from shortlm.paths import user_path
from shortlm.recipe import TextSettings


@dataclass(frozen=True)
class Source:
    """Pieces of text and what joins them. Documents are pieces too, except the lines of a .txt file."""

    name: str
    pieces: Iterator[str]
    joiner: str
    endless: bool = False


def open_source(settings: TextSettings) -> Source:
    """The text that `settings` name. Raises TextError if it can't be read."""
    if settings.text == "embedded":
        return Source("embedded", embedded_documents(settings.seed), settings.separator, endless=True)
    path = user_path(settings.text)
    if path.suffix in (".jsonl", ".json") and path.is_file():
        return Source(str(path), _jsonl(path, settings.field), settings.separator)
    if path.is_file():
        return Source(str(path), _lines(path), "")
    if path.suffix in (".txt", ".jsonl", ".json") or path.exists() or settings.text.startswith((".", "/", "~")):
        raise TextError(f"{settings.text}: no such text file; a .txt or .jsonl file or a hub data set is needed")
    return Source(settings.text, _streamed(settings), settings.separator)


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8") as file:
            yield from file
    except UnicodeDecodeError as error:
        raise TextError(f"{path}: is not UTF-8 text (byte {error.start}); convert it first") from error


def _jsonl(path: Path, field: str) -> Iterator[str]:
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise TextError(f"{path}: line {number} is not JSON; a .jsonl file has one object per line") from error
        yield _field(record, field, f"{path}: line {number}")


def _field(record: object, field: str, where: str) -> str:
    if not isinstance(record, dict) or not isinstance(record.get(field), str):
        names = ", ".join(record) if isinstance(record, dict) else "none"
        raise TextError(f"{where}: has no text field '{field}' (fields: {names}); choose one with --field")
    return record[field]


def _streamed(settings: TextSettings) -> Iterator[str]:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise TextError(
            f"{settings.text}: is no file here, and hub data sets need an extra (pip install 'shortlm[data]'); "
            "or give a local file: --text file.txt or file.jsonl"
        ) from error
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it tells of every try
    try:
        rows = load_dataset(settings.text, settings.subset, split=settings.split, streaming=True)
        for row in rows:
            yield _field(row, settings.field, settings.text)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise TextError(
            f"{settings.text}: is no file here and can't be streamed from the hub ({reason}); "
            "check the name and the network, or give a local file: --text file.txt or file.jsonl"
        ) from error
