"""Text to token ids, in bounded memory however long the text is, and never an id that the model has no row for.

A tokenizer takes a hundred bytes and more for each byte of text while it works. So long text is tokenised in pieces
that overlap, and joined inside the overlap, at a place around which both pieces have the very same tokens: what stands
left of it no longer depends on where the piece ended, what stands right of it not on where it began. The ids are
those of the text as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from typing import Any, NamedTuple

import numpy

from shortlm.errors import TextError
from shortlm.vocabulary import refuse_foreign_ids

PIECE = 2**18  # characters that are tokenised together
OVERLAP = 2**12
AROUND = 8  # equal tokens on either side of the place where pieces are joined


Span = tuple[int, int]  # characters of the whole text


class _Piece(NamedTuple):
    """The tokens of text[start:end]."""

    start: int
    end: int
    ids: list[int]
    encoding: Any

    def span(self, k: int) -> Span:
        """The place of token k. One by one, since those of all tokens would take longer than the tokenizer does."""
        first, last = self.encoding.token_to_chars(k) or (0, 0)
        return self.start + first, self.start + last


def token_ids(tokenizer: Any, text: str, vocabulary: int, name: str, enough: int | None = None) -> numpy.ndarray:
    """The ids of `text`, int64: all, or a beginning of more than `enough` where the text is long.

    Raises TextError naming `name` if the model's vocabulary lacks one.
    """
    parts, count = [], 0
    for ids in _in_pieces(tokenizer, text, name):
        parts.append(numpy.array(ids, dtype=numpy.int64))
        count += len(ids)
        if enough is not None and count > enough:
            break
    found = numpy.concatenate(parts)
    refuse_foreign_ids(found, vocabulary, name)
    return found


def _in_pieces(tokenizer: Any, text: str, name: str) -> Iterator[list[int]]:
    if len(text) <= 2 * PIECE or not getattr(tokenizer, "is_fast", False):
        yield _plain(tokenizer, text, name).input_ids
        return
    piece, begin = _tokenised(tokenizer, text, 0, name), 0
    while piece.end < len(text):
        following, joined = _following(tokenizer, text, piece, begin, name)
        yield piece.ids[begin : joined[0]]
        piece, begin = following, joined[1]
    yield piece.ids[begin:]


def _following(tokenizer: Any, text: str, piece: _Piece, begin: int, name: str) -> tuple[_Piece, tuple[int, int]]:
    """The next piece and where the two are joined; they overlap more if that can't be told.

    Raises TextError for what is no text: a letter repeated for pages, say, is tokenised from wherever one begins.
    """
    for overlap in (OVERLAP, min(8 * OVERLAP, PIECE // 2)):
        following = _tokenised(tokenizer, text, piece.end - overlap, name)
        if joined := _join(piece, following, begin):
            return following, joined
    raise TextError(
        f"{name}: {overlap:,} characters from character {piece.end - overlap:,} on hold nothing that tells where words "
        "begin; is this text? Break its lines, or leave the document out"
    )


def _plain(tokenizer: Any, text: str, name: str) -> Any:
    try:
        return tokenizer(text, add_special_tokens=False, verbose=False)
    except (TypeError, UnicodeEncodeError) as error:  # what tokenizers makes of lone surrogates
        raise TextError(f"{name}: holds characters that are no valid text (lone surrogates); clean it first") from error


def _tokenised(tokenizer: Any, text: str, start: int, name: str) -> _Piece:
    coded = _plain(tokenizer, text[start : start + PIECE], name)
    return _Piece(start, min(start + PIECE, len(text)), coded.input_ids, coded.encodings[0])


def _join(left: _Piece, right: _Piece, begin: int) -> tuple[int, int] | None:
    """Where to end `left` and to begin `right`: the place nearest to the overlap's middle where both agree around."""
    backwards = ((k, left.span(k)) for k in range(len(left.ids) - 1, begin - 1, -1))
    mine = dict(takewhile(lambda place: place[1][0] >= right.start, backwards))
    theirs = dict(takewhile(lambda place: place[1][0] < left.end, ((k, right.span(k)) for k in range(len(right.ids)))))
    index = {span: k for k, span in theirs.items()}
    places = [(k, index[span]) for k, span in mine.items() if span in index]
    middle = len(places) // 2
    nearest = sorted(range(len(places)), key=lambda n: abs(n - middle))
    return next((places[n] for n in nearest if _agree(left, mine, right, theirs, *places[n])), None)


def _agree(left: _Piece, mine: dict[int, Span], right: _Piece, theirs: dict[int, Span], k: int, other: int) -> bool:
    """Whether so many tokens on either side of the place are the same, in the same places."""
    around = range(-AROUND, AROUND)
    if not all(k + j in mine and other + j in theirs for j in around):
        return False
    return all(left.ids[k + j] == right.ids[other + j] and mine[k + j] == theirs[other + j] for j in around)
