"""The endless corpus: documents about the village, each with its exact probability.

`documents(seed)` yields texts; `sample(rng)` also gives the surprisal under the generator in nats. Summed over
held-out text and divided by its tokens that is the loss of a reader who knows the generator by heart: no model can
be expected to do better.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from shortlm.embedded import paragraphs
from shortlm.embedded.choices import Chooser

SEPARATOR = "\n\n"
"""Stands between the documents of a stream; paragraphs of one document are a single line each."""

KINDS: tuple[tuple[Callable[[Chooser], str], int], ...] = (
    (paragraphs.portrait, 2),
    (paragraphs.quiz, 3),
    (paragraphs.story, 3),
    (paragraphs.sums, 2),
    (paragraphs.calendar, 2),
    (paragraphs.line, 3),
    (paragraphs.agreement, 3),
    (paragraphs.possession, 4),
)
"""Kinds of paragraph with their weights."""


@dataclass(frozen=True)
class Document:
    """A text and its surprisal -log p(text), in nats, its end included."""

    text: str
    nats: float


def paragraph(ch: Chooser) -> str:
    """One paragraph of a kind drawn by weight."""
    write = ch.pick([kind for kind, _ in KINDS], [weight for _, weight in KINDS])
    return write(ch)


def sample(rng: random.Random) -> Document:
    """One document: paragraphs until a chance of one in four ends it, so that no reader can foresee the end."""
    ch = Chooser(rng)
    told = [paragraph(ch)]
    while ch.pick((True, False), (3, 1)):
        told.append(paragraph(ch))
    return Document("\n".join(told), ch.nats)


def scored_documents(seed: int) -> Iterator[Document]:
    """Endless documents with their surprisal; the same seed gives the same documents on every machine."""
    rng = random.Random(seed)
    while True:
        yield sample(rng)


def documents(seed: int) -> Iterator[str]:
    """Endless texts; the same seed gives the same texts on every machine."""
    return (document.text for document in scored_documents(seed))
