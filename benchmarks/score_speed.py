"""All single-removal perplexities of a random Llama, three ways, interleaved in one run.

a: the literature's way: a new model of L - 1 blocks per candidate, weights copied, one sequence at a time
b: one loaded model, one block bypassed, full forwards of all sequences together
c: the sweep

python benchmarks/score_speed.py [--blocks 24 --hidden 768 --repeats 5 --dtype float32]
Beside the ratios: the share of the machine's own matrix-product rate (at the model's shapes) that the sweep reaches.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch
import torch.nn.functional as F
from machine import describe, gemm_rate, save, spread
from transformers import LlamaConfig, LlamaForCausalLM

from shortlm.model import find_anatomy
from shortlm.sweep import BlockCaller, sweep

SEQUENCES, TOKENS, VOCABULARY = 10, 128, 32000


def new_model_each(model: Any, ids_BT: torch.Tensor, candidates: list[int]) -> list[float]:
    """(a)"""
    losses = []
    for dropped in candidates:
        config = LlamaConfig.from_dict(model.config.to_dict() | {"num_hidden_layers": len(model.model.layers) - 1})
        torch.set_default_dtype(model.dtype)
        shorter = LlamaForCausalLM(config)
        torch.set_default_dtype(torch.float32)
        kept = [block for i, block in enumerate(model.model.layers) if i != dropped]
        for target, source in zip(shorter.model.layers, kept, strict=True):
            target.load_state_dict(source.state_dict())
        for name in ("embed_tokens", "norm"):
            getattr(shorter.model, name).load_state_dict(getattr(model.model, name).state_dict())
        shorter.lm_head.load_state_dict(model.lm_head.state_dict())
        losses.append(sum(_nats(shorter, ids_BT[s : s + 1]) for s in range(len(ids_BT))))
    return losses


def bypass_each(model: Any, ids_BT: torch.Tensor, candidates: list[int]) -> list[float]:
    """(b)"""
    losses = []
    for dropped in candidates:
        block = model.model.layers[dropped]
        block.forward = lambda h_BTD, *args, **kwargs: h_BTD
        losses.append(_nats(model, ids_BT))
        del block.forward
    return losses


def by_sweep(model: Any, ids_BT: torch.Tensor, candidates: list[int]) -> list[float]:
    """(c)"""
    caller = BlockCaller(model, find_anatomy(model))
    masks = [frozenset({i}) for i in candidates]
    return sweep(caller, [(ids_BT, torch.ones_like(ids_BT, dtype=torch.bool))], masks).nats_MS.sum(1).tolist()


def _nats(model: Any, ids_BT: torch.Tensor) -> float:
    logits_BTV = model(input_ids=ids_BT, use_cache=False).logits
    parts = [F.cross_entropy(x[:-1].float(), y[1:], reduction="sum") for x, y in zip(logits_BTV, ids_BT, strict=True)]
    return float(sum(parts))


def gemm_flops(config: LlamaConfig, rows: int, forwards: int, heads: int) -> tuple[float, dict]:
    """FLOPs of the sweep's matrix products, and their shapes (rows, in, out) -> how often."""
    hidden, ffn = config.hidden_size, config.intermediate_size
    shapes = {(rows, hidden, hidden): 4 * forwards, (rows, hidden, ffn): 2 * forwards, (rows, ffn, hidden): forwards}
    shapes[(rows, hidden, config.vocab_size)] = heads
    return sum(2.0 * r * i * o * n for (r, i, o), n in shapes.items()), shapes


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=24)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--skip-a", action="store_true", help="leave the slowest way out")
    given = parser.parse_args()
    dtype = getattr(torch, given.dtype)
    config = LlamaConfig(
        hidden_size=given.hidden, intermediate_size=int(given.hidden * 8 / 3) // 64 * 64, vocab_size=VOCABULARY,
        num_hidden_layers=given.blocks, num_attention_heads=given.hidden // 64, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).to(dtype).eval().requires_grad_(False)
    ids_BT = torch.randint(VOCABULARY, (SEQUENCES, TOKENS))
    ways = {"a": new_model_each, "b": bypass_each, "c": by_sweep}
    if given.skip_a:
        del ways["a"]
    times: dict[str, list[float]] = {name: [] for name in ways}
    rates = []
    flops, shapes = gemm_flops(config, SEQUENCES * TOKENS, given.blocks * (given.blocks + 1) // 2, given.blocks + 1)
    results = {name: way(model, ids_BT, list(range(given.blocks))) for name, way in ways.items()}  # warm-up
    for _ in range(given.repeats):
        rates.append(gemm_rate(shapes, dtype))
        for name, way in ways.items():
            started = time.perf_counter()
            way(model, ids_BT, list(range(given.blocks)))
            times[name].append(time.perf_counter() - started)
    ideal = (given.blocks * (given.blocks - 1)) / (given.blocks * (given.blocks + 1) / 2)
    shares = [flops / c / rate for c, rate in zip(times["c"], rates, strict=True)]
    ratios = {
        f"{name} / c": spread([x / c for x, c in zip(times[name], times["c"], strict=True)])
        for name in ways
        if name != "c"
    }
    largest = max(abs(x / y - 1) for name in ways for x, y in zip(results[name], results["c"], strict=True))
    save(
        f"score_speed-{given.blocks}x{given.hidden}-{given.dtype}",
        {
            "what": __doc__.splitlines()[0], "machine": describe(), "blocks": given.blocks, "hidden": given.hidden,
            "sequences": SEQUENCES, "tokens": TOKENS, "dtype": given.dtype, "largest_relative_difference": largest,
            "seconds": {name: spread(t) for name, t in times.items()}, "ratios": ratios,
            "ideal b / c by block forwards": ideal, "gemm_flop_per_s": spread(rates),
            "share_of_gemm_rate": spread(shares), "median_share": statistics.median(shares),
        },
    )  # fmt: skip


if __name__ == "__main__":
    with torch.inference_mode():
        main()
