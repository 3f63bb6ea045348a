"""Text to token ids, in bounded memory however long the text is, and never an id that the model has no row for.

A tokenizer takes a hundred bytes and more for each byte of text while it works. So long text is tokenised in pieces
that overlap, and joined inside the overlap, at a place around which both pieces have the very same tokens: what stands
left of it no longer depends on where the piece ended, what stands right of it not on where it began. The ids are
those of the text as a whole.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy

from shortlm.errors import TextError
from shortlm.vocabulary import refuse_foreign_ids

PIECE = 2**18  # characters that are tokenised together
OVERLAP = 2**12
AROUND = 8  # equal tokens on either side of the place where pieces are joined


class _Piece(NamedTuple):
    """The tokens of text[start:end]; `spans` are places in the whole text."""

    end: int
    ids: list[int]
    spans: list[tuple[int, int]]


def token_ids(tokenizer: Any, text: str, vocabulary: int, name: str) -> numpy.ndarray:
    """The ids of `text`, int64. Raises TextError naming `name` if the model's vocabulary lacks one."""
    found = numpy.concatenate([numpy.array(ids, dtype=numpy.int64) for ids in _in_pieces(tokenizer, text, name)])
    refuse_foreign_ids(found, vocabulary, name)
    return found


def _in_pieces(tokenizer: Any, text: str, name: str) -> list[list[int]]:
    if len(text) <= 2 * PIECE or not getattr(tokenizer, "is_fast", False):
        return [_plain(tokenizer, text, name)]
    piece, begin, found = _tokenised(tokenizer, text, 0, name), 0, []
    while piece.end < len(text):
        following, joined = _following(tokenizer, text, piece, begin, name)
        found.append(piece.ids[begin : joined[0]])
        piece, begin = following, joined[1]
    return [*found, piece.ids[begin:]]


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


def _plain(tokenizer: Any, text: str, name: str, **options: Any) -> Any:
    try:
        coded = tokenizer(text, add_special_tokens=False, verbose=False, **options)
    except (TypeError, UnicodeEncodeError) as error:  # what tokenizers makes of lone surrogates
        raise TextError(f"{name}: holds characters that are no valid text (lone surrogates); clean it first") from error
    return coded if options else coded.input_ids


def _tokenised(tokenizer: Any, text: str, start: int, name: str) -> _Piece:
    end = start + PIECE
    coded = _plain(tokenizer, text[start:end], name, return_offsets_mapping=True)
    spans = [(start + a, start + b) for a, b in coded.offset_mapping]
    return _Piece(min(end, len(text)), coded.input_ids, spans)


def _join(left: _Piece, right: _Piece, begin: int) -> tuple[int, int] | None:
    """Where to end `left` and to begin `right`: the place nearest to the overlap's middle where both agree around."""
    index = {span: k for k, span in enumerate(right.spans)}
    places = []
    for k in range(len(left.spans) - AROUND, begin + AROUND - 1, -1):
        other = index.get(left.spans[k])
        if left.spans[k][0] < right.spans[0][0]:
            break
        if other is not None and other >= AROUND and _agree(left, k, right, other):
            places.append((k, other))
    return places[len(places) // 2] if places else None


def _agree(left: _Piece, k: int, right: _Piece, other: int) -> bool:
    mine, theirs = slice(k - AROUND, k + AROUND), slice(other - AROUND, other + AROUND)
    return left.ids[mine] == right.ids[theirs] and left.spans[mine] == right.spans[theirs]
