"""The tail of a search (final norm, lm_head, cross-entropy) against its matrix products at the machine's own rate.

States of several candidates go through norm and head in one call, in chunks of the vocabulary; the final norm alone is
called, not the model's forward. What is beyond the matrix products are the norm, exponentials, sums and gathers.

    python benchmarks/tail.py --hidden 1024 --vocabulary 32000
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch
from machine import describe, gemm_rate, save, spread
from transformers import AutoModelForCausalLM, LlamaConfig

from shortlm.model import find_anatomy
from shortlm.sweep import BlockCaller, Tail

TOKENS, REPEATS = 128, 15


def main() -> None:
    """Prints and saves one case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    given = parser.parse_args()
    dtype = getattr(torch, given.dtype)
    config = LlamaConfig(
        hidden_size=given.hidden, intermediate_size=2 * given.hidden, num_hidden_layers=1,
        num_attention_heads=given.hidden // 64, num_key_value_heads=given.hidden // 64, vocab_size=given.vocabulary,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    case = measured(model, given.hidden, given.vocabulary, dtype)
    name = f"tail-{given.hidden}x{given.vocabulary}-{given.dtype}"
    save(name, {"what": __doc__.splitlines()[0], "machine": describe(), "dtype": given.dtype, **case})


def measured(model: Any, hidden: int, vocabulary: int, dtype: torch.dtype) -> dict[str, Any]:
    """Seconds of a full call, and what its products take at the rate of a plain product of the same shapes."""
    caller = BlockCaller(model, find_anatomy(model))
    ids_BT = torch.randint(vocabulary, (1, TOKENS))
    batch, tail = caller.prepare(ids_BT, torch.ones_like(ids_BT, dtype=torch.bool)), Tail(caller)
    states = [torch.randn(1, TOKENS, hidden).to(dtype) for _ in range(caller.together(batch))]
    rows = len(states) * (TOKENS - 1)
    flops = 2.0 * rows * hidden * vocabulary
    tail.nats_of_several(states, batch)
    spent, ideal = [], []
    for _ in range(REPEATS):  # in turns: the machine's speed drifts
        ideal.append(flops / gemm_rate({(rows, hidden, vocabulary): 1}, dtype, 0.3))
        started = time.perf_counter()
        tail.nats_of_several(states, batch)
        spent.append(time.perf_counter() - started)
    ratios = [a / b for a, b in zip(spent, ideal, strict=True)]
    print(f"tail / products: {statistics.median(ratios):.3f}")
    return {
        "hidden": hidden, "vocabulary": vocabulary, "states": len(states), "tokens": TOKENS, "seconds": spread(spent),
        "products_seconds": spread(ideal), "tail / products": spread(ratios),
    }  # fmt: skip


if __name__ == "__main__":
    with torch.inference_mode():
        main()
