"""Endless rows for training, from several sources by weight, with an exact position to go on from.

Plain text is packed: full windows, no token left out or used twice, documents parted by a separator. Records
are rows of their own, in an order drawn anew for every pass.
"""

from __future__ import annotations

import hashlib
import random
from itertools import islice
from typing import Any, Protocol

import numpy

from shortlm.artifacts import DataFacts
from shortlm.errors import TextError
from shortlm.recipe import PhaseSettings, SourceSettings
from shortlm.text.readers import Reader, open_reader, text_of
from shortlm.text.records import Row, kind_of, rows_of
from shortlm.text.windows import adds_bos


class Rows(Protocol):
    """Endless rows; `state` is JSON and says which comes next."""

    name: str
    held_out: list[Row]
    state: dict[str, Any]

    def next(self) -> Row:
        """The next row."""
        ...


class TextRows:
    """Windows of a text. The first `held_out` of them are for validation; training begins with the next document."""

    def __init__(self, reader: Reader, field: str, tokenizer: Any, settings: PhaseSettings, held_out: int):
        self.name, self._reader, self._field, self._tokenizer = reader.name, reader, field, tokenizer
        self._length, self._apart = settings.length, settings.attend == "document" and not reader.running
        self._separator = [] if reader.running else separator(settings.separator, tokenizer)
        self._bos = [tokenizer.bos_token_id] if adds_bos(tokenizer) else []
        self._begin: Any = None
        self._gained = True  # whether this pass has given any token
        self.state: dict[str, Any] = {"at": None, "pass": 0, "left": [], "starts": []}
        self.held_out = [self.next() for _ in range(held_out)]
        if self.state["pass"]:
            raise TextError(f"{self.name}: gives less than the {held_out} windows of {self._length} to be held out")
        if held_out and next(self._reader.read(self.state["at"]), None) is None:
            raise TextError(f"{self.name}: has no document beyond the {held_out} windows held out; hold out fewer")
        self._begin = self.state["at"]
        self.state = {"at": self._begin, "pass": 0, "left": [], "starts": []}

    def next(self) -> Row:
        """The next full window; BOS stands before it if the tokenizer adds one (before documents kept apart)."""
        bos = [] if self._apart else self._bos
        needed = self._length - len(bos)
        left, starts = self.state["left"], self.state["starts"]
        while len(left) < needed:
            starts.append(len(left))
            left += self._document()
        ids = bos + left[:needed]
        inside = tuple(s for s in starts if s < needed) if self._apart else ()
        self.state |= {"left": left[needed:], "starts": [s - needed for s in starts if s >= needed]}
        return Row(ids, list(ids), inside)

    def _document(self) -> list[int]:
        text = self._read()
        ids = self._tokenizer(
            self._again() if text is None else text, add_special_tokens=False, verbose=False
        ).input_ids
        self._gained = self._gained or bool(ids)
        return [*(self._bos if self._apart else []), *ids, *self._separator]

    def _read(self) -> str | None:
        if getattr(self, "_at", self) != self.state["at"]:  # the beginning, or a position that was set
            self._items = self._reader.read(self.state["at"])
        item, self.state["at"] = next(self._items, (None, self.state["at"]))
        self._at = self.state["at"]
        return None if item is None else text_of(item, self._field, self.name)

    def _again(self) -> str:
        self.state |= {"at": self._begin, "pass": self.state["pass"] + 1}
        self._at = self
        text = self._read()
        gained, self._gained = self._gained, False
        if text is None or not gained:
            raise TextError(f"{self.name}: there is no text (beyond what is held out)")
        return text


class RecordRows:
    """Records in a new random order for every pass. Those held out are drawn as `datasets` does with seed 42."""

    def __init__(self, rows: list[Row], name: str, seed: int, held_out: float):
        count = round(held_out * len(rows)) if held_out < 1 else int(held_out)
        if count >= len(rows):
            raise TextError(
                f"{name}: has {len(rows)} records and {count} are to be held out; give a smaller --held-out"
            )
        order = numpy.random.default_rng(42).permutation(len(rows)).tolist()
        self.name, self._seed = name, seed
        self.held_out = [rows[i] for i in order[:count] if rows[i].targets]
        self.rows = [rows[i] for i in order[count:] if rows[i].targets]  # an answer that was cut off teaches nothing
        self.state: dict[str, Any] = {"at": 0, "pass": 0}
        self._drawn: tuple[int, list[int]] | None = None

    def next(self) -> Row:
        """The next record of this pass, or the first of the next one."""
        if self.state["at"] == len(self.rows):
            self.state = {"at": 0, "pass": self.state["pass"] + 1}
        row = self.rows[self._order()[self.state["at"]]]
        self.state = self.state | {"at": self.state["at"] + 1}
        return row

    def _order(self) -> list[int]:
        turn = self.state["pass"]
        if self._drawn is None or self._drawn[0] != turn:
            order = list(range(len(self.rows)))
            random.Random(f"{self._seed} {turn}").shuffle(order)
            self._drawn = turn, order
        return self._drawn[1]


class Mixture:
    """Rows from several sources so that their shares of the tokens follow the weights."""

    def __init__(self, sources: list[Rows], weights: list[float]):
        self.sources, self._weights = sources, weights
        self._given = [0] * len(sources)

    def next(self) -> Row:
        """From the source that is furthest behind its share."""
        i = min(range(len(self.sources)), key=lambda i: self._given[i] / self._weights[i])
        row = self.sources[i].next()
        self._given[i] += len(row.ids)
        return row

    @property
    def held_out(self) -> dict[str, list[Row]]:
        """Validation rows of each source."""
        found: dict[str, list[Row]] = {}
        for source in self.sources:
            if source.held_out:
                found[unused(source.name, found)] = source.held_out
        return found

    def state(self) -> dict[str, Any]:
        """The position, as JSON; a copy."""
        return {"given": list(self._given), "sources": [_copied(source.state) for source in self.sources]}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._given = list(state["given"])
        for source, own in zip(self.sources, state["sources"], strict=True):
            source.state = _copied(own)

    def records(self) -> int | None:
        """Records of one pass, if all sources are records."""
        counts = [len(s.rows) for s in self.sources if isinstance(s, RecordRows)]
        return sum(counts) if len(counts) == len(self.sources) else None


def open_rows(settings: PhaseSettings, tokenizer: Any) -> Mixture:
    """The training data of a phase. Raises TextError for what is missing or does not fit."""
    if not settings.data:
        raise TextError("no training data; give --data FILE (records or plain text) or a hub data set")
    if tokenizer is None:
        raise TextError("the model has no tokenizer; put its tokenizer files into the folder")
    return Mixture([_open(source, settings, tokenizer) for source in settings.data], [s.weight for s in settings.data])


def _open(source: SourceSettings, settings: PhaseSettings, tokenizer: Any) -> Rows:
    reader = open_reader(source)
    first = next(reader.read(None), (None, None))[0]
    if first is None:
        raise TextError(f"{reader.name}: is empty")
    kind = kind_of(first) if source.kind == "auto" else source.kind
    if kind == "text":
        return TextRows(reader, source.field, tokenizer, settings, _whole(settings.held_out, reader.name))
    rows = rows_of((item for item, _ in reader.read(None)), kind, tokenizer, settings.length, reader.name)
    return RecordRows(rows, reader.name, settings.seed, settings.held_out)


def _whole(held_out: float, name: str) -> int:
    if held_out and held_out < 1:
        raise TextError(f"{name}: of plain text a number of windows is held out; give --held-out 64, not a share")
    return int(held_out)


def unused(name: str, taken: dict[str, Any]) -> str:
    """`name`, with a number behind it if it is taken."""
    again = sum(other == name or other.startswith(f"{name} (") for other in taken)
    return f"{name} ({again + 1})" if again else name


def separator(text: str, tokenizer: Any) -> list[int]:
    """The tokens between documents. Raises TextError if the tokenizer has no such token."""
    if text not in ("eos", "bos"):
        return tokenizer(text, add_special_tokens=False).input_ids
    token = getattr(tokenizer, f"{text}_token_id")
    if token is None:
        raise TextError(f"--separator {text}: this tokenizer has no {text.upper()} token; give a text, e.g. '\\n\\n'")
    return [token]


def facts(rows: list[Row], name: str, seed: int | None) -> DataFacts:
    """What goes into artifacts about these rows."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(numpy.array(row.ids, dtype=numpy.int64).tobytes() + numpy.array(row.labels).tobytes())
    tokens = sum(len(row.ids) for row in rows)
    return DataFacts(source=name, sha256=digest.hexdigest(), sequences=len(rows), tokens=tokens, bos="rows", seed=seed)


def _copied(state: dict[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, list) else value for key, value in state.items()}


def first_rows(mixture: Mixture, count: int) -> list[Row]:
    """The next rows, without moving on."""
    state = mixture.state()
    rows = list(islice(iter(mixture.next, None), count))
    mixture.restore(state)
    return rows
