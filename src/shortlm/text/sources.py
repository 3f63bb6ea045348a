"""Where text comes from: the embedded world, a .txt or .jsonl file, or a hub data set.

A source is read piece by piece and only as far as it is needed; a hub data set is streamed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy

from shortlm.documents import RECORDS, is_json_list, parse_json, read_json_list
from shortlm.embedded import documents as embedded_documents
from shortlm.errors import TextError, shortened
from shortlm.paths import user_path
from shortlm.recipe import TextSettings

MOST_SHUFFLED = 1_000_000
LONGEST_PIECE = 2**16  # characters of a line of running text


@dataclass(frozen=True)
class Source:
    """Pieces of text and what joins them. Documents are pieces too, except the lines of a .txt file."""

    name: str
    pieces: Iterator[str]
    joiner: str
    endless: bool = False


def open_source(settings: TextSettings) -> Source:
    """The text that `settings` name, or some of its documents. Raises TextError if it can't be read."""
    source = _whole_source(settings)
    if source.endless and settings.shuffle:
        raise TextError(f"{source.name}: this text is endless, so it can't be shuffled; leave out --shuffle")
    if settings.shuffle:
        source = replace(source, pieces=_shuffled(source, settings.seed))
    return replace(source, pieces=islice(source.pieces, settings.documents)) if settings.documents else source


def _shuffled(source: Source, seed: int) -> Iterator[str]:
    """As `datasets` shuffles with this seed. Raises TextError for more documents than should be held in memory."""
    documents = list(islice(source.pieces, MOST_SHUFFLED + 1))
    if len(documents) > MOST_SHUFFLED:
        raise TextError(f"{source.name}: has more than {MOST_SHUFFLED:,} documents to shuffle; leave out --shuffle")
    yield from (documents[i] for i in numpy.random.default_rng(seed).permutation(len(documents)))


def _whole_source(settings: TextSettings) -> Source:
    if settings.text == "embedded":
        return Source("embedded", embedded_documents(settings.seed), settings.separator, endless=True)
    path = user_path(settings.text)
    if path.suffix in (".jsonl", ".json") and path.is_file():
        return Source(str(path), _json_texts(path, settings.field), settings.separator)
    if path.is_file():
        return Source(str(path), _lines(path, LONGEST_PIECE), "")
    if path.suffix in (".txt", ".jsonl", ".json") or path.exists() or settings.text.startswith((".", "/", "~")):
        raise TextError(f"{settings.text}: no such text file; a .txt or .jsonl file or a hub data set is needed")
    return Source(settings.text, _streamed(settings), settings.separator)


def _lines(path: Path, longest: int = -1) -> Iterator[str]:
    """Lines with their ends; at most `longest` characters at a time (a whole text may be one line)."""
    try:
        with path.open(encoding="utf-8") as file:
            while line := file.readline(longest):
                yield line
    except UnicodeDecodeError as error:
        raise TextError(f"{path}: is not UTF-8 text (byte {error.start}); convert it first") from error


def _json_texts(path: Path, field: str) -> Iterator[str]:
    """Of one list, or of an object per line."""
    if is_json_list(path):
        for number, record in enumerate(read_json_list(path, TextError), start=1):
            yield _field(record, field, f"{path}: record {number}")
        return
    for number, line in enumerate(_lines(path), start=1):
        if (line := line.removeprefix("\ufeff")).strip():
            where = f"{path}: line {number}"
            yield _field(parse_json(line, where, TextError, f"; {RECORDS}"), field, where)


def _field(record: object, field: str, where: str) -> str:
    if not isinstance(record, dict) or not isinstance(record.get(field), str):
        names = shortened(", ".join(record), 200) if isinstance(record, dict) else "none"
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
