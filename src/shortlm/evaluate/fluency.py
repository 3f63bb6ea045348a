"""Cheap numbers for broken generation, which perplexity and multiple choice hide: texts that repeat themselves.

distinct-n as in Li et al. (arXiv 1510.03055), over all texts; repeated 4-grams as in Welleck et al. (arXiv
1908.04319, seq-rep-4), mean over texts. Both depend on the length, so they are compared at equal lengths.
"""

from __future__ import annotations

import math

from shortlm.artifacts import Fluency
from shortlm.statistics import stderr

SIZES = (1, 2, 3)
REPEATED = 4


def fluency(texts: list[list[int]]) -> Fluency | None:
    """Of token ids; None if no text is long enough for a 4-gram."""
    long_enough = [ids for ids in texts if len(ids) >= REPEATED]
    if not long_enough:
        return None
    shares = [1 - len(set(grams)) / len(grams) for grams in (_grams(ids, REPEATED) for ids in long_enough)]
    return Fluency(
        texts=len(shares), tokens=sum(map(len, long_enough)), distinct=[_distinct(long_enough, n) for n in SIZES],
        repeated=math.fsum(shares) / len(shares), repeated_stderr=stderr(shares),
    )  # fmt: skip


def _distinct(texts: list[list[int]], n: int) -> float:
    grams = [gram for ids in texts for gram in _grams(ids, n)]
    return len(set(grams)) / len(grams)


def _grams(ids: list[int], n: int) -> list[tuple[int, ...]]:
    return [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]


def of_the_same_length(windows: list[list[int]], written: list[list[int]]) -> list[list[int]]:
    """Beginnings of windows, as many and as long as the samples, for comparison with text that people wrote."""
    return [window[1 : 1 + len(ids)] for window, ids in zip(windows, written, strict=False)]
