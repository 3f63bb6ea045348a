"""How often the race (`--select k`) chooses as the full sweep does, and with what share of its block forwards.

python benchmarks/race.py [--trials 200] [MODEL TEXT ...]

Every token's loss without each block is computed once on many sequences; a trial draws 64 of them, races on the
table as the command does, and compares with the k lowest means on all 64. Block forwards are counted by the sweep's
own arithmetic: per sequence L for the whole model and L - 1 - i for each block i that still runs.
"""

from __future__ import annotations

import argparse
import random
from itertools import product

import torch
from machine import describe, save

from shortlm.choose.candidates import MARGIN, Candidates
from shortlm.choose.race import ROUNDS, rounds_of, selected
from shortlm.model import open_model
from shortlm.recipe import ModelSettings, TextSettings
from shortlm.sweep import BlockCaller, sweep
from shortlm.text import open_windows
from shortlm.units import blocks_mask, protected_blocks

SEQUENCES, POOL = 64, 768


def table(model: str, text: str) -> torch.Tensor:
    """nats_LST: every token's loss without each block."""
    opened = open_model(ModelSettings(model=model))
    settings = TextSettings(text=text, sequences=POOL).for_model(model)
    windows = open_windows(settings, opened.tokenizer, opened.model.config.vocab_size)
    caller = BlockCaller(opened.model, opened.anatomy)
    masks = [blocks_mask([i]) for i in range(len(caller.blocks))]
    each = sweep(caller, windows.batches(4), masks, per_token=True).each_MST
    assert each is not None
    return each


def race(nats_LST: torch.Tensor, wanted: int, protected: list[int]) -> tuple[list[int], float]:
    """The choice, and block forwards as a share of the full sweep's."""
    n_blocks = len(nats_LST)
    candidates = Candidates(wanted, SEQUENCES, [i for i in range(n_blocks) if i not in protected])
    sums_L, work = torch.zeros(n_blocks, dtype=torch.float64), 0
    for sequences in rounds_of(SEQUENCES, ROUNDS):
        part = slice(sequences[0], sequences[-1] + 1)
        running = candidates.racing if part.start else list(range(n_blocks))
        work += (part.stop - part.start) * (n_blocks + sum(n_blocks - 1 - i for i in running))
        part_LST = nats_LST[:, part]
        sums_L[running] += part_LST[running].sum((1, 2))
        candidates.seen(part_LST[candidates.racing])
        candidates.eliminate()
        if not candidates.racing:
            break
    return selected(candidates, sums_L), work / (SEQUENCES * n_blocks * (n_blocks + 1) / 2)


def trials(nats_LST: torch.Tensor, wanted: int, rule: str, count: int) -> dict:
    """Over random draws of the sequences."""
    rng, n_blocks = random.Random(0), len(nats_LST)
    protected = protected_blocks(rule, n_blocks)
    same, shares = 0, []
    for _ in range(count):
        drawn_LST = nats_LST[:, rng.sample(range(POOL), SEQUENCES)]
        means = drawn_LST.sum((1, 2)).tolist()
        full = sorted(sorted((i for i in range(n_blocks) if i not in protected), key=lambda i: (means[i], i))[:wanted])
        chosen, share = race(drawn_LST, wanted, protected)
        same += chosen == full
        shares.append(share)
    return {"select": f"{wanted}:{rule}", "same": same / count, "mean_share_of_block_forwards": sum(shares) / count,
            "largest_share": max(shares)}  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", nargs="*", default=[], metavar="MODEL TEXT")
    parser.add_argument("--trials", type=int, default=200)
    given = parser.parse_args()
    pairs = [("embedded", "auto"), *zip(given.pairs[::2], given.pairs[1::2], strict=True)]
    rows = []
    for model, text in pairs:
        nats_LST = table(model, text)
        n_blocks = len(nats_LST)
        for part, rule in product((0.25, 0.4), ("+", "ends", "none")):
            wanted = max(1, round(part * n_blocks))
            if wanted < n_blocks - len(protected_blocks(rule, n_blocks)):
                name = model.rsplit("/", 1)[-1]
                rows.append({"model": name, "blocks": n_blocks} | trials(nats_LST, wanted, rule, given.trials))
                print(rows[-1], flush=True)
    same = sum(row["same"] for row in rows) / len(rows)
    share = sum(row["mean_share_of_block_forwards"] for row in rows) / len(rows)
    result = {
        "what": __doc__.splitlines()[0], "machine": describe(), "sequences": SEQUENCES, "rounds": ROUNDS,
        "margin": MARGIN, "trials_each": given.trials, "same": same, "share": share, "rows": rows,
    }  # fmt: skip
    save("race", result)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
