"""Endless rows for training from one source: text in full windows, or records.

Plain text is packed: full windows, no token left out or used twice, documents with a separator between them. Records
are rows of their own, in an order drawn anew for every pass.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy

from shortlm.errors import TextError
from shortlm.recipe import PhaseSettings
from shortlm.text.readers import Reader, text_of
from shortlm.text.records import PackedRows, Row
from shortlm.text.tokenizing import token_ids
from shortlm.text.windows import adds_bos
from shortlm.vocabulary import refuse_foreign_ids


class Rows(Protocol):
    """Endless rows; `place` says which comes next. It is never changed in place, so it can be kept and set again."""

    name: str
    held_out: Sequence[Row]
    place: Any

    def next(self) -> Row:
        """The next row."""
        ...

    def as_json(self, place: Any) -> dict[str, Any]:
        """A place as JSON."""
        ...

    def from_json(self, state: Any) -> Any:
        """The place back. Raises ValueError for what is none."""
        ...


class TextPlace(NamedTuple):
    """Where the text goes on: the reader's position, passes so far, tokens read and how many of them are used up.

    `starts`: where documents begin among the tokens.
    """

    at: Any
    turn: int
    tokens: list[int]
    used: int
    starts: tuple[int, ...]


class TextRows:
    """Windows of a text. The first `held_out` of them are for validation; training begins with the next document."""

    def __init__(
        self, reader: Reader, field: str, tokenizer: Any, settings: PhaseSettings, held_out: int, vocabulary: int
    ):
        self.name, self._reader, self._field, self._tokenizer = reader.name, reader, field, tokenizer
        self._length, self._apart = settings.length, settings.attend == "document" and not reader.running
        self._separator = [] if reader.running else separator(settings.separator, tokenizer)
        self._bos = [tokenizer.bos_token_id] if adds_bos(tokenizer) else []
        self._vocabulary = vocabulary
        refuse_foreign_ids(self._separator + self._bos, vocabulary, self.name)
        self._begin: Any = None
        self._gained = True  # whether this pass has given any token
        self._items, self._behind = iter(()), object()  # the reader at work, and the position behind what it gave
        self.place = TextPlace(None, 0, [], 0, ())
        self.held_out: Sequence[Row] = [self.next() for _ in range(held_out)]
        if self.place.turn:
            raise TextError(f"{self.name}: gives less than the {held_out} windows of {self._length} to be held out")
        if held_out and next(self._reader.read(self.place.at), None) is None:
            raise TextError(f"{self.name}: has no document beyond the {held_out} windows held out; hold out fewer")
        self._begin = self.place.at
        self.place = TextPlace(self._begin, 0, [], 0, ())

    def next(self) -> Row:
        """The next full window; BOS stands before it if the tokenizer adds one (before documents kept apart)."""
        bos = [] if self._apart else self._bos
        needed = self._length - len(bos)
        while len(self.place.tokens) - self.place.used < needed:
            self._read_on()
        at, turn, tokens, used, starts = self.place
        ids = bos + tokens[used : used + needed]
        inside = tuple(s - used for s in starts if s < used + needed) if self._apart else ()
        self.place = TextPlace(at, turn, tokens, used + needed, tuple(s for s in starts if s >= used + needed))
        return Row(ids, list(ids), inside)

    def _read_on(self) -> None:
        """One more document behind the tokens that are left."""
        text = self._read()
        text = self._again() if text is None else text
        ids = token_ids(self._tokenizer, text, self._vocabulary, self.name).tolist()
        self._gained = self._gained or bool(ids)
        at, turn, tokens, used, starts = self.place
        left = tokens[used:]
        tokens = [*left, *(self._bos if self._apart else []), *ids, *self._separator]
        self.place = TextPlace(at, turn, tokens, 0, (*(s - used for s in starts), len(left)))

    def _read(self) -> str | None:
        before = self.place.at
        if self._behind != before:  # the beginning, or a place that was set
            self._items = self._reader.read(before)
        found = next(self._items, None)
        if found is None:
            self._behind = before
            return None
        item, self._behind = found
        self.place = self.place._replace(at=self._behind)
        return text_of(item, self._field, self.name, self._reader.place(before))

    def _again(self) -> str:
        self.place, self._behind = self.place._replace(at=self._begin, turn=self.place.turn + 1), object()
        text = self._read()
        gained, self._gained = self._gained, False
        if text is None or not gained:
            raise TextError(f"{self.name}: there is no text (beyond what is held out)")
        return text

    def as_json(self, place: TextPlace) -> dict[str, Any]:
        """Without the tokens that are used up."""
        starts = [s - place.used for s in place.starts]
        return {"at": place.at, "pass": place.turn, "left": place.tokens[place.used :], "starts": starts}

    def from_json(self, state: Any) -> TextPlace:
        """Raises ValueError for what `as_json` did not write of this text."""
        at, turn, left, starts = values_of(state, "at", "pass", "left", "starts")
        good = at is None or self._reader.fits(at)
        good = good and are_counts([turn], left, starts) and all(s < len(left) for s in starts)
        if not (good and max(left, default=0) < self._vocabulary):
            raise ValueError("it names no position in the data")
        return TextPlace(at, turn, left, 0, tuple(starts))


class RecordPlace(NamedTuple):
    """How many records of which pass were given."""

    at: int
    turn: int


class RecordRows:
    """Records in a new random order for every pass. Those held out are drawn as `datasets` does with seed 42."""

    def __init__(self, rows: PackedRows, name: str, seed: int, held_out: float):
        count = round(held_out * len(rows)) if held_out < 1 else int(held_out)
        if count >= len(rows):
            raise TextError(
                f"{name}: has {len(rows)} records and {count} are to be held out; give a smaller --held-out"
            )
        order = numpy.random.default_rng(42).permutation(len(rows)).tolist()
        good = [bool(row.targets) for row in rows]  # an answer that was cut off teaches nothing
        self.name, self._seed, self._rows = name, seed, rows
        self.held_out: Sequence[Row] = [rows[i] for i in order[:count] if good[i]]
        self._kept = [i for i in order[count:] if good[i]]
        if not self._kept:
            raise TextError(f"{name}: no record with an answer is left beside those held out; hold out fewer")
        self.place = RecordPlace(0, 0)
        self._drawn: tuple[int, list[int]] | None = None

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Row]:
        return (self._rows[i] for i in self._kept)

    def next(self) -> Row:
        """The next record of this pass, or the first of the next one."""
        at, turn = self.place
        if at == len(self):
            at, turn = 0, turn + 1
        self.place = RecordPlace(at + 1, turn)
        return self._rows[self._order(turn)[at]]

    def _order(self, turn: int) -> list[int]:
        if self._drawn is None or self._drawn[0] != turn:
            order = list(self._kept)
            random.Random(f"{self._seed} {turn}").shuffle(order)
            self._drawn = turn, order
        return self._drawn[1]

    def as_json(self, place: RecordPlace) -> dict[str, Any]:
        """The place."""
        return {"at": place.at, "pass": place.turn}

    def from_json(self, state: Any) -> RecordPlace:
        """Raises ValueError for what `as_json` did not write."""
        at, turn = values_of(state, "at", "pass")
        if not (are_counts([at, turn]) and at <= len(self)):
            raise ValueError("it names no position in the data")
        return RecordPlace(at, turn)


def values_of(state: Any, *names: str) -> list[Any]:
    """These values of a position read from JSON. Raises ValueError if it holds anything else."""
    if not isinstance(state, dict) or state.keys() != set(names):
        raise ValueError("it names no position in the data")
    return [state[name] for name in names]


def are_counts(*lists: Any) -> bool:
    """Whether all of these are lists of whole numbers from 0."""
    return all(isinstance(values, list) and all(type(v) is int and v >= 0 for v in values) for values in lists)


def separator(text: str, tokenizer: Any) -> list[int]:
    """The tokens between documents. Raises TextError if the tokenizer has no such token."""
    if text not in ("eos", "bos"):
        return tokenizer(text, add_special_tokens=False).input_ids
    token = getattr(tokenizer, f"{text}_token_id")
    if token is None:
        raise TextError(f"--separator {text}: this tokenizer has no {text.upper()} token; give a text, e.g. '\\n\\n'")
    return [token]
