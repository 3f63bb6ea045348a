"""Every choice of 4 blocks out of 16, 1,820 masks in one call: forwards, peak memory, time, beside the schedule.

python benchmarks/masks.py [--hidden 512 --memory 1GiB]
A process of its own does the sweep; its peak is the kernel's (resident memory, reset before the sweep begins). The same
for two greedy rounds, with and without the states of the current set kept from one call to the next.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from machine import describe, save
from transformers import LlamaConfig, LlamaForCausalLM

from shortlm.model import open_files
from shortlm.recipe import ModelSettings
from shortlm.sizes import byte_size
from shortlm.sweep import BlockCaller, KeptPrefixes, Scheduler, Work, sweep
from shortlm.units import Mask, Unit, blocks_mask

BLOCKS, SEQUENCES, TOKENS = 16, 5, 128


def main() -> None:
    """One sweep within the budget, then the greedy rounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--memory", default="1GiB")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = open_files(ModelSettings(model=_made(Path(folder), given.hidden), stream="off"))
        masks = tuple(blocks_mask(removed) for removed in combinations(range(BLOCKS), 4))
        ids_BT = torch.randint(8192, (SEQUENCES, TOKENS), generator=torch.Generator().manual_seed(0))
        batches = [(ids_BT, torch.ones_like(ids_BT, dtype=torch.bool))]
        scheduler, work = Scheduler.of(files), Work(SEQUENCES, TOKENS, masks=masks)
        schedule = scheduler.within(work, byte_size(given.memory), streamed=False, batch_size=SEQUENCES)
        opened = files.open(streamed=False)
        caller = BlockCaller(opened.model, opened.anatomy, opened.disk)
        started = time.perf_counter()
        sweep(caller, batches, masks, most=schedule.most)
        seconds = time.perf_counter() - started
        peak = _peak()
        found = {
            "masks": len(masks), "block_forwards": caller.forwards, "scheduled_forwards": schedule.block_forwards,
            "forwards of each mask in full": sum(BLOCKS - 4 for _ in masks) + BLOCKS,
            "peak_bytes": peak, "scheduled_peak_bytes": schedule.peak_bytes,
            "peak / schedule": peak / schedule.peak_bytes,
            "beyond the process before": (peak - scheduler.base) / (schedule.peak_bytes - scheduler.base),
            "states if all were kept": 1821 * ids_BT.numel() * given.hidden * 4, "seconds": seconds,
            "greedy": _greedy(caller, batches),
        }  # fmt: skip
    save(f"masks-{BLOCKS}x{given.hidden}", {"what": __doc__.splitlines()[0], "machine": describe(), **found})


def _made(folder: Path, hidden: int) -> str:
    config = LlamaConfig(
        hidden_size=hidden, intermediate_size=int(hidden * 8 / 3) // 64 * 64, vocab_size=8192, num_hidden_layers=BLOCKS,
        num_attention_heads=hidden // 64, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    return str(folder)


def _peak() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def _greedy(caller: BlockCaller, batches: list[Any]) -> dict[str, int]:
    """Block forwards of six rounds that each drop one block more, chosen by its loss."""
    spent, tokens = {}, sum(ids_BT.numel() for ids_BT, _ in batches)
    for name, kept in (("states kept", KeptPrefixes(2**28, tokens)), ("nothing kept", None)):
        before, current = caller.forwards, Mask()
        for _ in range(6):
            rest = [Unit(i) for i in range(BLOCKS) if Unit(i) not in current]
            candidates = [current | {unit} for unit in rest]
            losses = sweep(caller, batches, candidates, kept=kept, keep=[current])
            current = candidates[int(losses.nats_MS.sum(1).argmin())]
        spent[name] = caller.forwards - before
    spent["candidates in full"] = sum((BLOCKS - r) * (BLOCKS - r - 1) for r in range(6))
    return spent


if __name__ == "__main__":
    with torch.inference_mode():
        main()
