"""How often lazy greedy removes what greedy removes, and what it spares: on resampled sequences, counted, not timed.

The losses of all sets of up to k units are computed once for a pool of sequences. Every trial draws sequences from it
and runs both searches on the same draw, with an evaluator that looks losses up and counts the block forwards that the
sweep would take.

    python benchmarks/lazy.py embedded --text embedded --drop 25%
"""

from __future__ import annotations

import argparse
import json
import random
from itertools import combinations
from math import comb
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from shortlm.choose.budget import read_budget
from shortlm.choose.greedy import GREEDY
from shortlm.choose.question import Question, question_of
from shortlm.choose.trials import Trials
from shortlm.model import open_model
from shortlm.recipe import ChooseSettings, ModelSettings, TextSettings
from shortlm.sweep import BlockCaller, Losses, count_forwards, path_of, sweep
from shortlm.text import open_windows
from shortlm.units import Mask

POOL, SEQUENCES, MOST = 64, 10, 20_000


class Looked:
    """An evaluator whose losses are known; block forwards are counted as the sweep counts them."""

    def __init__(self, table: dict[Mask, torch.Tensor], tokens: int, n_blocks: int, drawn: list[int]):
        self.table, self.n_blocks, self.drawn = table, n_blocks, drawn
        self.sequences, self.forwards, self.kept = len(drawn), 0.0, set[bytes]()
        self.tokens_S = torch.full((len(drawn),), float(tokens), dtype=torch.float64)
        self.shares_S, self.caller = 1 / self.tokens_S.sum() + 0 * self.tokens_S, SimpleNamespace(disk=None)
        self.base_S = table[frozenset()][drawn]

    def losses(self, masks: list[Mask], keep: list[Mask] = ()) -> Losses:
        first = [] if self.forwards else [frozenset()]  # the whole model, once
        wanted = {path[:i] for path in (path_of(mask, self.n_blocks) for mask in keep) for i in range(1, len(path))}
        paths = [path_of(mask, self.n_blocks) for mask in (*first, *masks)]
        self.forwards += count_forwards(paths, {b"", *(wanted & self.kept)})
        self.kept = {prefix for prefix in wanted if any(path.startswith(prefix) for path in paths)} | wanted & self.kept
        return Losses(self.base_S, torch.stack([self.table[mask][self.drawn] for mask in masks]), self.tokens_S)


def table(model: str, text: str, question: Question, count: int) -> tuple[dict[Mask, torch.Tensor], int]:
    """Summed nats of every sequence of the pool without each set of up to `count` free units."""
    opened = open_model(ModelSettings(model=model))
    windows = open_windows(
        TextSettings(text=text, sequences=POOL).for_model(model), opened.tokenizer, opened.model.config.vocab_size
    )
    masks = [frozenset(units) for n in range(1, count + 1) for units in combinations(question.free, n)]
    caller = BlockCaller(opened.model, opened.anatomy)
    losses = sweep(caller, windows.batches(4), masks)
    found = dict(zip(masks, losses.nats_MS, strict=True)) | {frozenset(): losses.base_S}
    return found, windows.shape[1] - 1


def searched(question: Question, evaluator: Looked, **options: bool) -> tuple[Mask, float]:
    """The set, and block forwards."""
    trials = Trials(question, evaluator)  # ty: ignore[invalid-argument-type]
    with trials.trail("greedy"):
        removed = GREEDY.search(trials, {**GREEDY.options.defaults, **options})
    assert isinstance(removed, frozenset)
    return removed, evaluator.forwards


def main() -> None:
    """Prints a JSON line, and keeps it in results/lazy.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--text", default="auto")
    parser.add_argument("--drop", default="25%")
    parser.add_argument("--protect", default="ends")
    parser.add_argument("--trials", type=int, default=200)
    given = parser.parse_args()
    facts = open_model(ModelSettings(model=given.model)).facts
    settings = ChooseSettings(drop=given.drop, protect=given.protect)
    question = question_of(settings, facts, read_budget(settings, facts))
    count = question.count()
    assert sum(comb(len(question.free), n) for n in range(count + 1)) <= MOST
    known, tokens = table(given.model, given.text, question, count)
    found = compared(question, known, tokens, given.trials)
    print(json.dumps(found))
    results = Path(__file__).parent / "results" / "lazy.json"
    tables = json.loads(results.read_text()) if results.is_file() else {}
    tables[f"{Path(given.model).name}, {given.drop}, protected: {given.protect}"] = found
    results.write_text(json.dumps(tables, indent=1) + "\n")


def compared(question: Question, known: dict[Mask, torch.Tensor], tokens: int, count: int) -> dict[str, Any]:
    """Over so many draws."""
    rng, n_blocks = random.Random(0), question.model.n_blocks
    same, worse, exact, lazy = 0, [], [], []
    for _ in range(count):
        drawn = rng.sample(range(POOL), SEQUENCES)
        one, spent = searched(question, Looked(known, tokens, n_blocks, drawn), lazy=False)
        other, less = searched(question, Looked(known, tokens, n_blocks, drawn), lazy=True)
        difference_S = (known[other] - known[one])[drawn] / tokens
        error = float(difference_S.std() / len(drawn) ** 0.5) if one != other else 0.0
        same += one == other
        worse.append((float(difference_S.mean()), error))
        exact.append(spent)
        lazy.append(less)
    return {
        "trials": count, "removed": question.count(), "same": same / count,
        "worse by more than a standard error": sum(d > e for d, e in worse if d > 0),
        "largest loss (nats)": max(d for d, _ in worse),
        "greedy forwards": sum(exact) / count, "lazy forwards": sum(lazy) / count,
        "lazy / greedy": sum(lazy) / sum(exact), "greedy / in full": sum(exact) / count / in_full(question),
    }  # fmt: skip


def in_full(question: Question) -> int:
    """Block forwards of a greedy search that computes every candidate from the first block on, and the whole model."""
    n_blocks, free, total = question.model.n_blocks, len(question.free), question.model.n_blocks
    for gone in range(question.count()):
        total += (free - gone) * (n_blocks - gone - 1)
    return total


if __name__ == "__main__":
    with torch.inference_mode():
        main()
