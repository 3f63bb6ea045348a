"""The corpus as token windows: BOS, then the next tokens of the documents joined by a blank line.

Shapes: B windows of a batch, T tokens of a window (BOS included).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch

from shortlm.embedded.corpus import SEPARATOR, Document, scored_documents

WINDOW = 256
IGNORED = -100
"""Label of positions that no loss is taken of, as in transformers."""


@dataclass(frozen=True)
class HeldOut:
    """Held-out windows with the exact surprisal of their text under the generator."""

    ids_BT: torch.Tensor
    labels_BT: torch.Tensor
    tokens: int
    nats_per_token: float


def encoded_documents(tokenizer, seed: int) -> Iterator[tuple[Document, list[int]]]:
    """Each document with its tokens. All but the first open with the separator, which tokenizes the same there as
    in the joined text."""
    encoder, before = tokenizer.backend_tokenizer, ""
    for document in scored_documents(seed):
        yield document, encoder.encode(before + document.text, add_special_tokens=False).ids
        before = SEPARATOR


def windows(tokenizer, seed: int) -> Iterator[list[int]]:
    """Endless full windows; no token of the stream is used twice or left out."""
    held: list[int] = []
    for _, ids in encoded_documents(tokenizer, seed):
        held += ids
        while len(held) >= WINDOW - 1:
            yield [tokenizer.bos_token_id, *held[: WINDOW - 1]]
            del held[: WINDOW - 1]


def batches(tokenizer, seed: int, size: int) -> Iterator[torch.Tensor]:
    """Endless batches ids_BT of `size` windows."""
    stream = windows(tokenizer, seed)
    while True:
        yield torch.tensor(list(islice(stream, size)))


def held_out(tokenizer, seed: int, count: int) -> HeldOut:
    """About `count` windows made of whole documents, so that text and surprisal cover each other; the last window
    is padded and its padding has no label."""
    ids: list[int] = []
    nats = 0.0
    for document, more in encoded_documents(tokenizer, seed):
        ids, nats = ids + more, nats + document.nats
        if len(ids) > (count - 1) * (WINDOW - 1):
            break
    ids_BT, labels_BT = _padded(ids, tokenizer.bos_token_id, tokenizer.pad_token_id)
    return HeldOut(ids_BT, labels_BT, len(ids), nats / len(ids))


def _padded(ids: list[int], bos: int, pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    rows = [ids[i : i + WINDOW - 1] for i in range(0, len(ids), WINDOW - 1)]
    gaps = [WINDOW - 1 - len(row) for row in rows]
    ids_BT = torch.tensor([[bos, *row, *[pad] * gap] for row, gap in zip(rows, gaps, strict=True)])
    labels_BT = torch.tensor([[IGNORED, *row, *[IGNORED] * gap] for row, gap in zip(rows, gaps, strict=True)])
    return ids_BT, labels_BT
