"""What dropping blocks gives in decoding: speed, memory and limits of a Llama with random weights, whole and cut.

python benchmarks/decode.py [--blocks 24 --hidden 768 --dtype float32 --drop 0.25 0.5 --memory 2GiB]

Three things are told: the time of a decoding step in blocks, head and rest; the speed-up of the whole step and of the
blocks alone beside their ideals (all else the same; L / (L - k)); the largest batch and longest output within a budget.
Next to it the physical limit of batch 1: the bytes of weights that a step reads over the speed of reading memory.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from machine import describe, save, spread
from random_checkpoint import write
from transformers import LlamaConfig

from shortlm.bench import bench
from shortlm.cut import cut
from shortlm.recipe import BenchSettings, CutSettings, ModelSettings, WorkloadSettings
from shortlm.report.speed import shares, speed_rows


def read_rate(device: str, size: int = 2**28) -> float:
    """Bytes per second at which memory is read: the median of ten sums over `size` bytes."""
    data, times = torch.ones(size // 4, device=device), []
    for _ in range(11):
        started = time.perf_counter()
        data.sum().item()
        times.append(time.perf_counter() - started)
    return size / statistics.median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=24)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--drop", type=float, nargs="+", default=[0.25, 0.5])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--output-tokens", type=int, default=32)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--memory", default=None, help="Also find the limits within this budget.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        save(
            f"decode-{options.blocks}x{options.hidden}-{options.dtype}-{options.device}",
            measured(options, Path(folder)),
        )


def measured(options: argparse.Namespace, folder: Path) -> dict:
    config = LlamaConfig(
        hidden_size=options.hidden, intermediate_size=options.hidden * 8 // 3, num_hidden_layers=options.blocks,
        num_attention_heads=options.hidden // 64, num_key_value_heads=options.hidden // 64,
        vocab_size=options.vocabulary, max_position_embeddings=4096, dtype="bfloat16",
    )  # fmt: skip
    write(folder / "dense", config, device=options.device)
    roles, paths = ["dense"], [folder / "dense"]
    for share in options.drop:
        k = round(share * options.blocks)
        first = (options.blocks - k) // 2
        paths.append(folder / f"cut-{k}")
        cut(ModelSettings(model=str(paths[0])), list(range(first, first + k)), CutSettings(verify=False), paths[-1])
        roles.append(f"without {k} of {options.blocks}")
    work = WorkloadSettings(batches=options.batches, output_tokens=[options.output_tokens], runs=options.runs)
    settings = BenchSettings(workloads=[work], limits=options.memory is not None)
    models = [
        ModelSettings(model=str(p), dtype=options.dtype, device=options.device, memory=options.memory) for p in paths
    ]
    found = bench(models, settings, roles, say=print)
    rate = read_rate(options.device)
    table = (
        options.vocabulary * options.hidden * getattr(torch, options.dtype).itemsize
    )  # of which a step reads one row
    return {
        "machine": describe(), "device": found.device, "read_bytes_per_second": rate,
        "steps": [
            {
                "model": s.breakdown.role, "blocks_s": s.breakdown.blocks, "head_s": s.breakdown.head,
                "rest_s": s.breakdown.rest, "speedup": s.speedup, "ideal": s.ideal,
                "blocks_of_their_ideal": s.of_ideal_blocks, "weight_bytes": m.weight_bytes,
                "read_bytes": m.weight_bytes - table, "reading_limit_s": (m.weight_bytes - table) / rate,
            }
            for s, m in zip(shares(found), found.models, strict=True)
        ],
        "cases": [
            {
                "model": r.role, "batch": r.case.batch, "latency": spread([x.seconds for x in c.runs]),
                "tokens_per_second": r.tokens_per_second, "first_token_s": r.first_token, "per_token_s": r.per_token,
                "peak_bytes": r.peak_bytes, "cache_bytes": r.cache_bytes,
                "speedup": [r.ratio.value, r.ratio.low, r.ratio.high] if r.ratio else None,
            }
            for r, c in zip(speed_rows(found), found.cells, strict=True)
        ],
        "limits": [x.model_dump() for x in found.limits],
    }  # fmt: skip


if __name__ == "__main__":
    main()
