"""What bench costs: its tokens per second beside those of a bare `generate` loop, timed by hand, in turns.

python benchmarks/bench_overhead.py [--model embedded --batch 1 --output-tokens 64 --rounds 41 --threads 1]
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from pathlib import Path

import torch
from machine import describe, save, spread

from shortlm.bench.cases import Case
from shortlm.bench.runners import Runner
from shortlm.model import open_model
from shortlm.recipe import BenchSettings, ModelSettings, WorkloadSettings


def bare(model: torch.nn.Module, ids_BT: torch.Tensor, tokens: int) -> float:
    """Seconds of one call, as one would write it down."""
    started = time.perf_counter()
    with torch.no_grad():
        model.generate(
            input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT), min_new_tokens=tokens, max_new_tokens=tokens,
            do_sample=False, pad_token_id=0,
        )  # fmt: skip
    if ids_BT.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--output-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--threads", type=int, default=1, help="More of them on a shared machine add noise, not cost.")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    runner = Runner(
        open_model(ModelSettings(model=options.model, device=options.device)), BenchSettings(breakdown=False), "model"
    )
    case = Case(options.batch, 64, options.output_tokens, WorkloadSettings())
    ids_BT, ours, theirs = runner.prompt(case), [], []
    for _ in range(options.rounds + 2):
        pair = [lambda: ours.append(runner.time(case, 0).seconds)]
        pair.append(lambda: theirs.append(bare(runner.model, ids_BT, options.output_tokens)))
        for measure in random.sample(pair, 2):  # whichever is second finds warmer caches
            measure()
    tokens = options.batch * options.output_tokens
    ratios = [b / a for a, b in zip(ours[2:], theirs[2:], strict=True)]
    name = Path(options.model).name
    save(
        f"bench_overhead-{name}-batch{options.batch}-{options.device}",
        {
            "machine": describe(), "model": name, "batch": options.batch, "output_tokens": options.output_tokens,
            "bench_tokens_per_second": spread([tokens / t for t in ours[2:]]),
            "bare_tokens_per_second": spread([tokens / t for t in theirs[2:]]),
            "bench_over_bare": spread(ratios), "mean_ratio": statistics.fmean(ratios),
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
