"""All single-removal perplexities of a random Llama, three ways, interleaved in one run.

a: the literature's way: a new model of L - 1 blocks per candidate, weights copied, one sequence at a time
b: one loaded model, one block bypassed, full forwards of all sequences together
c: the sweep

python benchmarks/score_speed.py [--blocks 24 --hidden 768 --repeats 5 --dtype float32]
(a) and (b) cost the same for every candidate, so that some of them are timed and scaled up: all three ways then take
about as long, and drifts of the machine hit them alike. Beside the ratios: the share of the machine's own
matrix-product rate, at the model's own shapes and weighted by their FLOPs, that the sweep reaches.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
import torch.nn.functional as F
from machine import describe, gemm_rate, save, spread
from transformers import LlamaConfig, LlamaForCausalLM

from shortlm.model import find_anatomy
from shortlm.sweep import BlockCaller, auto_batch_size, sweep
from shortlm.units import blocks_mask

SEQUENCES, TOKENS, VOCABULARY = 10, 128, 32000


def new_model_each(model: Any, ids_BT: torch.Tensor, candidates: list[int]) -> list[float]:
    """(a)"""
    losses = []
    for dropped in candidates:
        config = LlamaConfig.from_dict(model.config.to_dict() | {"num_hidden_layers": len(model.model.layers) - 1})
        torch.set_default_dtype(model.dtype)
        with model.device:
            shorter: Any = LlamaForCausalLM(config).eval()
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
    size = auto_batch_size(*ids_BT.shape, caller.device)
    batches = [(part_BT, torch.ones_like(part_BT, dtype=torch.bool)) for part_BT in ids_BT.split(size)]
    return sweep(caller, batches, [blocks_mask([i]) for i in candidates]).nats_MS.sum(1).tolist()


def _nats(model: Any, ids_BT: torch.Tensor) -> float:
    logits_BTV = model(input_ids=ids_BT, use_cache=False).logits
    parts = [F.cross_entropy(x[:-1].float(), y[1:], reduction="sum") for x, y in zip(logits_BTV, ids_BT, strict=True)]
    return float(sum(parts))


def product_shapes(config: LlamaConfig, rows: int, calls: int, heads: int) -> dict[tuple[int, int, int], float]:
    """The sweep's matrix products: (rows, in, out) -> how many calls with that many rows."""
    hidden, ffn, wide = config.hidden_size, config.intermediate_size, 4096
    shapes: dict[tuple[int, int, int], float] = {(rows, hidden, hidden): 4 * calls, (rows, hidden, ffn): 2 * calls}
    shapes |= {(rows, ffn, hidden): calls, (rows, hidden, wide): heads * config.vocab_size / wide}
    return shapes


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=24)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--some-a", type=int, default=3, help="candidates of (a) per repeat; its time is scaled up")
    parser.add_argument("--some-b", type=int, default=8, help="candidates of (b) per repeat; its time is scaled up")
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def main() -> None:
    """Every repeat times (a) and (b) on some candidates (each costs the same) and (c) whole, next to one another."""
    given = parse()
    dtype, device = getattr(torch, given.dtype), torch.device(given.device)
    config = LlamaConfig(
        hidden_size=given.hidden, intermediate_size=int(given.hidden * 8 / 3) // 64 * 64, vocab_size=VOCABULARY,
        num_hidden_layers=given.blocks, num_attention_heads=given.hidden // 64, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(config).to(device, dtype).eval().requires_grad_(False)
    ids_BT = torch.randint(VOCABULARY, (SEQUENCES, TOKENS), device=device)
    every = list(range(given.blocks))
    ways = {
        "a": (new_model_each, every[: given.some_a]),
        "b": (bypass_each, every[: given.some_b]),
        "c": (by_sweep, every),
    }
    size = auto_batch_size(SEQUENCES, TOKENS, device)
    calls, heads = given.blocks * (given.blocks + 1) / 2 * SEQUENCES / size, (given.blocks + 1) * SEQUENCES / size
    shapes = product_shapes(config, size * TOKENS, calls, heads)
    flops = sum(2.0 * rows * wide * out * often for (rows, wide, out), often in shapes.items())
    results = {name: way(model, ids_BT, some) for name, (way, some) in ways.items()}  # also the warm-up
    times: dict[str, list[float]] = {name: [] for name in ways}
    rates = []
    for repeat in range(given.repeats):
        for name in list(ways)[:: -1 if repeat % 2 else 1]:
            way, some = ways[name]
            before = gemm_rate(shapes, dtype, 1.0, device) if name == "c" else 0.0
            times[name].append(timed(way, model, ids_BT, some, device) * given.blocks / len(some))
            if name == "c":
                rates.append((before + gemm_rate(shapes, dtype, 1.0, device)) / 2)
    block, head = (
        2 * given.hidden * given.hidden + 1.5 * given.hidden * config.intermediate_size,
        given.hidden * VOCABULARY / 2,
    )
    work = [
        n * 2 * block + k * 2 * head
        for n, k in ((given.blocks * (given.blocks - 1), given.blocks), (sum(every) + given.blocks, given.blocks + 1))
    ]
    ideal = work[0] / work[1]
    ratios = {f"{n} / c": spread([x / c for x, c in zip(times[n], times["c"], strict=True)]) for n in ("a", "b")}
    shares = [flops / c / rate for c, rate in zip(times["c"], rates, strict=True)]
    largest = max(abs(x / y - 1) for n in ("a", "b") for x, y in zip(results[n], results["c"], strict=False))
    where = "" if device.type == "cpu" else f"-{device.type}"
    save(
        f"score_speed-{given.blocks}x{given.hidden}-{given.dtype}{where}",
        {
            "what": __doc__.splitlines()[0], "machine": describe(), "blocks": given.blocks, "hidden": given.hidden,
            "sequences": SEQUENCES, "tokens": TOKENS, "dtype": given.dtype, "largest_relative_difference": largest,
            "seconds": {name: spread(t) for name, t in times.items()}, "ratios": ratios,
            "b / c that the FLOPs allow": ideal, "share of that": ratios["b / c"]["median"] / ideal,
            "gemm_flop_per_s": spread(rates), "share_of_gemm_rate": spread(shares),
        },
    )  # fmt: skip


def timed(way: Any, model: Any, ids_BT: torch.Tensor, some: list[int], device: torch.device) -> float:
    """Seconds."""
    _finish(device)
    started = time.perf_counter()
    way(model, ids_BT, some)
    _finish(device)
    return time.perf_counter() - started


def _finish(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
