"""Blocks against heads and channels at the same number of parameters: decoding speed of a Llama with random weights.

python benchmarks/depth_vs_width.py [--blocks 24 --hidden 768 --drop 0.25 --batches 1 8 64 --dtype float32 --device cpu]

Depth: a run of blocks goes. Width: FLAP, Wanda-sp and LLM-Pruner are asked for the parameters that depth leaves, on
random tokens; which heads and channels go hardly matters to speed, how many of which block does. Wanda-sp comes twice:
with as many heads and channels of every block as its share says, and as a plain config, which for a Llama can say only
numbers of heads that divide its width. All models take turns; told are medians, and ratios to the dense one by pairs.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from pathlib import Path

from machine import describe, save, spread
from random_checkpoint import write
from transformers import LlamaConfig

from shortlm.artifacts import CutStep, Manifest, WidthStep, manifest_of
from shortlm.bench import bench
from shortlm.cut import cut
from shortlm.recipe import BenchSettings, CutSettings, ModelSettings, TextSettings, WidthSettings, WorkloadSettings
from shortlm.report.speed import shares, speed_rows
from shortlm.width import prune_width

WIDTHS = {
    "flap, free": {"method": "flap", "shape": "free"},
    "llm-pruner, even": {"method": "llm-pruner", "shape": "even"},
    "wanda-sp, even": {"method": "wanda-sp", "shape": "even"},
    "wanda-sp, plain": {"method": "wanda-sp", "shape": "even", "form": "plain"},
}


def made(options: argparse.Namespace, folder: Path) -> dict[str, Path]:
    """The models by their names, the dense one first."""
    config = LlamaConfig(
        hidden_size=options.hidden, intermediate_size=options.ffn or options.hidden * 8 // 3 // 64 * 64,
        num_hidden_layers=options.blocks, num_attention_heads=options.hidden // options.head,
        num_key_value_heads=options.hidden // options.head, vocab_size=options.vocabulary,
        max_position_embeddings=4096, tie_word_embeddings=False, dtype="bfloat16",
    )  # fmt: skip
    dense = options.dense or folder / "dense"
    if not options.dense:
        write(dense, config, device=options.device)
    rng = random.Random(0)
    ids = folder / "ids.json"
    ids.write_text(json.dumps([[rng.randrange(options.vocabulary) for _ in range(128)] for _ in range(8)]))
    model = ModelSettings(model=str(dense), device=options.device)
    k = round(options.drop * options.blocks)
    first = (options.blocks - k) // 2
    paths = {"dense": dense, f"without {k} blocks": folder / "depth"}
    manifest = cut(model, list(range(first, first + k)), CutSettings(verify=False), folder / "depth")
    assert manifest.plan is not None
    left = manifest.plan.parameters_after
    for name, way in WIDTHS.items():
        if name in options.widths:
            paths[name] = folder / name.replace(", ", "-")
            settings = WidthSettings.model_validate({"to_params": str(left), "verify": False, **way})
            prune_width(model, TextSettings(ids=str(ids), sequences=0), settings, paths[name], say=print)
    return paths


def shape_of(path: Path) -> dict:
    """Parameters and what stays of every block."""
    manifest: Manifest | None = manifest_of(path)
    step = manifest.steps[-1] if manifest else None
    if isinstance(step, CutStep):
        return {"parameters": step.plan.parameters_after}
    if isinstance(step, WidthStep):
        heads, channels = [len(w.heads) for w in step.widths], [w.channels for w in step.widths]
        return {"parameters": step.parameters_after, "heads": [min(heads), max(heads)],
                "channels": [min(channels), max(channels)]}  # fmt: skip
    return {}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=24)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--head", type=int, default=64)
    parser.add_argument("--ffn", type=int, default=0)
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--drop", type=float, default=0.25)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--prompt-tokens", type=int, default=32)
    parser.add_argument("--output-tokens", type=int, default=32)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--widths", nargs="+", default=list(WIDTHS))
    parser.add_argument("--dense", type=Path, default=None, help="Instead of writing one of these sizes.")
    parser.add_argument("--scratch", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        paths = made(options, Path(folder))
        work = WorkloadSettings(
            batches=options.batches, prompt_tokens=[options.prompt_tokens], output_tokens=[options.output_tokens],
            runs=options.runs, warmup=2,
        )  # fmt: skip
        models = [ModelSettings(model=str(p), dtype=options.dtype, device=options.device) for p in paths.values()]
        found = bench(models, BenchSettings(workloads=[work]), list(paths), say=print)
        shapes = {name: shape_of(path) for name, path in paths.items()}
    save(f"depth_vs_width-{options.blocks}x{options.hidden}-{options.dtype}-{options.device}", {
        "machine": describe(), "device": found.device, "drop": options.drop, "prompt_tokens": options.prompt_tokens,
        "output_tokens": options.output_tokens, "models": shapes,
        "steps": [
            {"model": s.breakdown.role, "blocks_s": s.breakdown.blocks, "head_s": s.breakdown.head,
             "rest_s": s.breakdown.rest}
            for s in shares(found)
        ],
        "cases": [
            {"model": r.role, "batch": r.case.batch, "latency": spread([x.seconds for x in c.runs]),
             "tokens_per_second": r.tokens_per_second, "per_token_s": r.per_token, "peak_bytes": r.peak_bytes,
             "speedup": [r.ratio.value, r.ratio.low, r.ratio.high] if r.ratio else None}
            for r, c in zip(speed_rows(found), found.cells, strict=True)
        ],
    })  # fmt: skip


if __name__ == "__main__":
    main()
