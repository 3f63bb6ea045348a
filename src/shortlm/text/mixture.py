"""The training data of a phase: several sources mixed by weight, with an exact position to go on from."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import numpy

from shortlm.artifacts import DataFacts
from shortlm.errors import TextError
from shortlm.recipe import PhaseSettings, SourceSettings
from shortlm.text.readers import open_reader
from shortlm.text.records import Row, kind_of, rows_of
from shortlm.text.rows import RecordRows, Rows, TextRows, are_counts, values_of


class Mixture:
    """Rows from several sources so that their shares of the tokens follow the weights."""

    def __init__(self, sources: list[Rows], weights: list[float]):
        self.sources, self._weights = sources, weights
        self._given = [0] * len(sources)  # tokens, by those that were made
        self._ahead: deque[tuple[Row, Any]] = deque()  # rows that were only looked at, each with the place behind it
        self._place = self._behind()  # of the rows that were given

    def next(self) -> Row:
        """From the source that is furthest behind its share."""
        row, self._place = self._ahead.popleft() if self._ahead else self._made()
        return row

    def first(self, count: int) -> list[Row]:
        """The next rows, without moving on; they are not made again when their turn comes."""
        while len(self._ahead) < count:
            self._ahead.append(self._made())
        return [row for row, _ in islice(self._ahead, count)]

    def _made(self) -> tuple[Row, Any]:
        i = min(range(len(self.sources)), key=lambda i: self._given[i] / self._weights[i])
        row = self.sources[i].next()
        self._given[i] += len(row.ids)
        return row, self._behind()

    def _behind(self) -> tuple[list[int], list[Any]]:
        return list(self._given), [source.place for source in self.sources]

    @property
    def held_out(self) -> dict[str, Sequence[Row]]:
        """Validation rows of each source."""
        found: dict[str, Sequence[Row]] = {}
        for source in self.sources:
            if source.held_out:
                found[unused(source.name, found)] = source.held_out
        return found

    def state(self) -> dict[str, Any]:
        """The position, as JSON; a copy."""
        given, places = self._place
        pairs = zip(self.sources, places, strict=True)
        return {"given": list(given), "sources": [source.as_json(place) for source, place in pairs]}

    def restore(self, state: Any) -> None:
        """Go on from there. Raises ValueError for what is no position in this data."""
        given, places = values_of(state, "given", "sources")
        if not (are_counts(given) and isinstance(places, list) and len(given) == len(places) == len(self.sources)):
            raise ValueError("it is a position in other data")
        found = [source.from_json(place) for source, place in zip(self.sources, places, strict=True)]
        for source, place in zip(self.sources, found, strict=True):
            source.place = place
        self._given = list(given)
        self._ahead.clear()
        self._place = self._behind()

    def records(self) -> int | None:
        """Records of one pass, if all sources are records."""
        counts = [len(s) for s in self.sources if isinstance(s, RecordRows)]
        return sum(counts) if len(counts) == len(self.sources) else None


def open_rows(settings: PhaseSettings, tokenizer: Any, vocabulary: int) -> Mixture:
    """The training data of a phase. Raises TextError for what is missing or does not fit the tokenizer or the model."""
    if not settings.data:
        raise TextError("no training data; give --data FILE (records or plain text) or a hub data set")
    if tokenizer is None:
        raise TextError("the model has no tokenizer; put its tokenizer files into the folder")
    sources = [_open(source, settings, tokenizer, vocabulary) for source in settings.data]
    return Mixture(sources, [source.weight for source in settings.data])


def first_item(source: SourceSettings) -> tuple[Any, Any]:
    """The first item of a source and the position behind it. Raises TextError if there is none."""
    reader = open_reader(source)
    first = next(reader.read(None), None)
    if first is None:
        raise TextError(f"{reader.name}: is empty")
    return first


def _open(source: SourceSettings, settings: PhaseSettings, tokenizer: Any, vocabulary: int) -> Rows:
    reader, first = open_reader(source), first_item(source)
    kind = kind_of(first[0]) if source.kind == "auto" else source.kind
    if kind == "text":
        held_out = _whole(settings.held_out, reader.name)
        return TextRows(reader, source.field, tokenizer, settings, held_out, vocabulary)
    rows = rows_of(reader, kind, tokenizer, settings.length, vocabulary)
    return RecordRows(rows, reader.name, settings.seed, settings.held_out)


def _whole(held_out: float, name: str) -> int:
    if held_out and held_out < 1:
        raise TextError(f"{name}: of plain text a number of windows is held out; give --held-out 64, not a share")
    return int(held_out)


def unused(name: str, taken: dict[str, Any]) -> str:
    """`name`, with a number behind it if it is taken."""
    again = sum(other == name or other.startswith(f"{name} (") for other in taken)
    return f"{name} ({again + 1})" if again else name


def facts(rows: Iterable[Row], name: str, seed: int | None) -> DataFacts:
    """What goes into artifacts about these rows."""
    digest, sequences, tokens = hashlib.sha256(), 0, 0
    for row in rows:
        digest.update(numpy.array(row.ids, dtype=numpy.int64).tobytes() + numpy.array(row.labels).tobytes())
        sequences, tokens = sequences + 1, tokens + len(row.ids)
    return DataFacts(source=name, sha256=digest.hexdigest(), sequences=sequences, tokens=tokens, bos="rows", seed=seed)
