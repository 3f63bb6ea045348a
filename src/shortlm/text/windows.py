"""Token windows of equal length, with a BOS policy.

Shapes: B windows, T tokens. `keep_BT` is False on padding. BOS policies: on every
window (length + 1 tokens), on the first only (the token stream begins with it), or none.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy
import torch

from shortlm.artifacts import DataFacts
from shortlm.documents import read_json
from shortlm.errors import TextError, library_errors, shown
from shortlm.paths import user_path
from shortlm.recipe import Plain, TextSettings, settings_of
from shortlm.text.sources import Source, open_source
from shortlm.text.tokenizing import token_ids
from shortlm.vocabulary import refuse_foreign_ids

MOST_ENDLESS = 2**25  # tokens
SPARE = 16  # the last tokens of a beginning may change when the text goes on
Tokenize = Callable[[str, int | None], numpy.ndarray]  # of a text, at least so many tokens (None: all)


@dataclass(frozen=True)
class Windows:
    """Token ids (int64) with their mask, and the facts that go into artifacts."""

    ids_BT: torch.Tensor
    keep_BT: torch.Tensor
    facts: DataFacts
    weights_S: torch.Tensor | None = None  # of several texts: the weight of every predicted token of each window

    @property
    def shape(self) -> tuple[int, int]:
        """Windows and tokens of each."""
        return len(self.ids_BT), self.ids_BT.shape[1]

    def part(self, which: slice) -> Windows:
        """Some of the windows; the facts and weights stay those of all."""
        weights_S = None if self.weights_S is None else self.weights_S[which]
        return Windows(self.ids_BT[which], self.keep_BT[which], self.facts, weights_S)

    @property
    def shares_S(self) -> torch.Tensor:
        """The factors that make a mean over all predicted tokens of each window's sum; of several texts, by weight."""
        if self.weights_S is not None:
            return self.weights_S
        tokens = (self.keep_BT[:, 1:] & self.keep_BT[:, :-1]).sum()
        return torch.full((len(self.ids_BT),), 1 / max(1, int(tokens)), dtype=torch.float64)

    def batches(self, size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """(ids_BT, keep_BT) of `size` windows each; the last one may have fewer."""
        return list(zip(self.ids_BT.split(size), self.keep_BT.split(size), strict=True))


def open_windows(settings: TextSettings | Plain, tokenizer: Any, vocabulary: int) -> Windows:
    """Windows of the text (or the ids) that `settings` name. Raises TextError if there is too little."""
    settings = settings_of(TextSettings, settings)
    if settings.ids is not None:
        return windows_from_ids(_read_ids(user_path(settings.ids)), vocabulary, settings.ids)
    if tokenizer is None:
        raise TextError(
            "the model has no tokenizer; put its tokenizer files into the folder, or give token ids (--ids)"
        )
    source = open_source(settings)
    _refuse_endless(source, settings)
    bos = _bos_policy(settings, tokenizer)
    make = _document_windows if settings.packing == "documents" else _joined_windows

    def tokenize(text: str, enough: int | None) -> numpy.ndarray:
        return token_ids(tokenizer, text, vocabulary, source.name, enough)

    ids_BT = make(source, settings, tokenize, bos, tokenizer.bos_token_id)
    refuse_foreign_ids(ids_BT, vocabulary, source.name)  # also BOS
    return _windows(ids_BT, torch.ones_like(ids_BT, dtype=torch.bool), source.name, bos, settings.seed)


def _refuse_endless(source: Source, settings: TextSettings) -> None:
    """A made-up text goes on as long as it is asked to."""
    if source.endless and not settings.count:
        raise TextError(f"{source.name}: this text is endless; say how many windows with --sequences")
    if source.endless and (settings.skip + settings.count) * settings.length > MOST_ENDLESS:
        raise TextError(
            f"{source.name}: at most {MOST_ENDLESS:,} tokens are made of it, and --sequences, --skip and --length ask "
            "for more; ask for less"
        )


def windows_from_ids(ids: Any, vocabulary: int, name: str = "ids") -> Windows:
    """Windows from a tensor, or from lists of ids (of unequal length: padded on the right and masked)."""
    rows = ids.tolist() if isinstance(ids, torch.Tensor) else ids
    if not isinstance(rows, list) or not rows or not all(isinstance(row, list) and len(row) > 1 for row in rows):
        raise TextError(f"{name}: token ids must be sequences x tokens, with at least 2 tokens in each")
    wrong = [i for row in rows for i in row if isinstance(i, bool) or not isinstance(i, int) or not 0 <= i < vocabulary]
    if wrong:
        raise TextError(f"{name}: token id {shown(wrong[0])} is outside the vocabulary (0..{vocabulary - 1})")
    longest = max(map(len, rows))
    ids_BT = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    keep_BT = torch.tensor([[True] * len(row) + [False] * (longest - len(row)) for row in rows])
    return _windows(ids_BT, keep_BT, name, "as given", None)


def _windows(ids_BT: torch.Tensor, keep_BT: torch.Tensor, name: str, bos: str, seed: int | None) -> Windows:
    digest = hashlib.sha256(ids_BT.numpy().tobytes() + keep_BT.numpy().tobytes()).hexdigest()
    facts = DataFacts(source=name, sha256=digest, sequences=len(ids_BT), tokens=int(keep_BT.sum()), bos=bos, seed=seed)
    return Windows(ids_BT, keep_BT, facts)


def _read_ids(path: Path) -> Any:
    if not path.is_file():
        raise TextError(f"{path}: no such file of token ids (.json or .npy)")
    if path.suffix == ".npy":
        with library_errors(TextError, f"{path}: can't be read as token ids", "give a .json or .npy file"):
            found = numpy.load(path, allow_pickle=False, mmap_mode="r")  # which checks the size before memory is taken
            if not isinstance(found, numpy.ndarray):
                raise TextError(f"{path}: is an archive of arrays (.npz); give one array, a .npy file")
            return found.tolist()
    content = read_json(path, TextError)
    return content.get("ids") if isinstance(content, dict) else content


def adds_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer begins a text with BOS."""
    return tokenizer.bos_token_id is not None and tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]


def _bos_policy(settings: TextSettings, tokenizer: Any) -> str:
    if settings.bos in ("auto", "auto-first"):
        wanted = "first" if settings.bos == "auto-first" else "every"
        return wanted if adds_bos(tokenizer) else "none"
    if settings.bos != "none" and tokenizer.bos_token_id is None:
        raise TextError(f"--bos {settings.bos}: this tokenizer has no BOS token; use --bos none")
    return settings.bos


def _joined_windows(source: Source, settings: TextSettings, tokenize: Tokenize, bos: str, token: int) -> torch.Tensor:
    length, skip = settings.length, settings.skip
    wanted = skip + settings.count if settings.count else None
    stream = _stream(source, tokenize, None if wanted is None else wanted * length)
    if bos == "first":
        stream = numpy.concatenate([[token], stream])
    count = min(len(stream) // length, wanted or len(stream))
    _refuse_too_short(source.name, len(stream), count, wanted or skip + 1, length)
    ids_BT = torch.from_numpy(stream[skip * length : count * length].reshape(-1, length).copy())
    return torch.cat([torch.full((len(ids_BT), 1), token), ids_BT], dim=1) if bos == "every" else ids_BT


def _stream(source: Source, tokenize: Tokenize, enough: int | None) -> numpy.ndarray:
    """Tokens of the joined text: all of it, or a beginning of at least `enough` tokens.

    The text is tokenised as a whole, not piece by piece, so that windows don't depend on how far was read.
    """
    if enough is None:
        return tokenize(source.joiner.join(source.pieces), None)
    pieces: list[str] = []
    more = 64
    while more:
        fresh = list(islice(source.pieces, more))
        pieces += fresh
        tokens = tokenize(source.joiner.join(pieces), enough + SPARE)
        more = 0 if len(tokens) >= enough + SPARE or len(fresh) < more else 2 * more
    return tokens


def _document_windows(source: Source, settings: TextSettings, tokenize: Tokenize, bos: str, token: int) -> torch.Tensor:
    rng, rows, length = random.Random(settings.seed), [], settings.length
    wanted = settings.skip + settings.count if settings.count else None
    for document in source.pieces:
        tokens = tokenize(document, None)
        if len(tokens) >= length:
            start = rng.randrange(len(tokens) - length + 1)
            rows.append(_with_bos(tokens[start : start + length].tolist(), token, bos, first=not rows))
        if len(rows) == wanted:
            break
    _refuse_too_short(source.name, len(rows) * length, len(rows), wanted or settings.skip + 1, length)
    return torch.tensor(rows[settings.skip :], dtype=torch.long)


def _with_bos(row: list[int], token: int, bos: str, first: bool) -> list[int]:
    if bos == "every":
        return [token, *row]
    return [token, *row[:-1]] if bos == "first" and first else row


def _refuse_too_short(name: str, tokens: int, count: int, wanted: int, length: int) -> None:
    if tokens == 0:
        raise TextError(f"{name}: gives no window of {length} tokens (the text is empty or too short); give more text")
    if count < wanted:
        raise TextError(
            f"{name}: gives {tokens} tokens, {count} windows of {length}, and {wanted} are needed; "
            "give more text, or fewer --sequences or a smaller --length"
        )
