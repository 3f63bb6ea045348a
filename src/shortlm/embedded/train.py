"""Trains the embedded model from nothing and measures it: `python -m shortlm.embedded.train --out DIR`.

Reads no file and no network: world, corpus, tokenizer and questions come from this package. Writes a Hugging Face
checkpoint folder and `training.json`, which says how long it took, on what, and how good the result is.
The committed model is this script's output with its default settings.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import random
import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from shortlm.embedded import measure, stream
from shortlm.embedded.tokenizer import save, train_tokenizer


@dataclass(frozen=True)
class Settings:
    """What the result depends on."""

    seed: int = 1
    """Corpus, initial weights and dropped blocks; held-out text has seeds of its own."""
    tokens: int = 6_500_000
    """Text tokens to train on, each seen once."""
    minutes: float | None = None
    """If set, the schedule ends after this time at the latest; such a run cannot be repeated exactly."""
    batch: int = 8
    """Windows per step."""
    short: float = 0.2
    """First part of the run in which windows are cut to a quarter: copying from a near context is found sooner there,
    because attention starts out spread over fewer tokens."""
    rate: float = 5e-3
    """Peak learning rate."""
    drop: float = 0.0
    """Chance of each inner block to be left out of a training step (LayerDrop, Fan et al. 2020). Any makes pruning
    nearly free, which is not what a model to try pruning on is for (docs/log.md)."""
    threads: int = 2
    bfloat16: bool = True
    """Matrix products of the training steps in bfloat16; weights, optimizer and every measurement stay float32."""
    compiled: bool = True
    """Compile the blocks with torch.compile; needs a C++ compiler."""


def build(tokenizer, seed: int) -> LlamaForCausalLM:
    """The untrained model: 12 blocks of width 128, 1.9 million weights."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=12,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    _start_weights(model)
    return model


def _start_weights(model: LlamaForCausalLM) -> None:
    """Variance 1/fan-in instead of the 0.02 meant for wide models, with which attention here starts too flat to learn
    copying; what writes to the residual stream is scaled by 1/sqrt(2 L), as in GPT-2, so depth does not inflate it."""
    calm = 1 / math.sqrt(2 * model.config.num_hidden_layers)
    for block in model.model.layers:
        for name, weight in block.named_parameters():
            if weight.ndim == 2:
                writes = name.endswith(("o_proj.weight", "down_proj.weight"))
                torch.nn.init.normal_(weight, std=weight.shape[1] ** -0.5 * (calm if writes else 1))
    torch.nn.init.normal_(model.model.embed_tokens.weight, std=0.05)


def drawn_blocks(rng: random.Random, count: int, drop: float) -> list[int]:
    """Blocks that take part in a step. The first and last always do: they translate from and to the vocabulary."""
    return [i for i in range(count) if i in (0, count - 1) or rng.random() >= drop]


def drop_at(progress: float, highest: float) -> float:
    """Chance of leaving a block out: none in the first fifth, where copying is learnt, then rising up to the middle."""
    return highest * min(1.0, max(0.0, (progress - 0.2) / 0.3))


def shortened(ids_BT: torch.Tensor, bos_id: int) -> torch.Tensor:
    """Four short windows from each long one; BOS takes the place of each first token."""
    cut_BT = ids_BT.reshape(-1, stream.WINDOW // 4).clone()
    cut_BT[:, 0] = bos_id
    return cut_BT


def rate_at(progress: float, peak: float) -> float:
    """Learning rate after `progress` (0 to 1) of the run: 3 % linear warm-up, then a cosine down to 2 % of the peak."""
    if progress < 0.03:
        return peak * (progress + 1e-3) / 0.031
    turned = (1 + math.cos(math.pi * (progress - 0.03) / 0.97)) / 2
    return peak * (0.02 + 0.98 * turned)


def optimizers(model, settings: Settings) -> list[torch.optim.Optimizer]:
    """Muon (Jordan 2024) for the matrices of the blocks, AdamW for embeddings and norms, at one scheduled rate.

    AdamW alone, on long windows only, had not learnt to repeat a counted noun after 10 million tokens; this had by 1.
    """
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    others = [model.model.embed_tokens.weight, *(p for p in model.parameters() if p.ndim < 2)]
    return [
        torch.optim.Muon(matrices, lr=settings.rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=settings.rate, weight_decay=0.0, betas=(0.9, 0.95), fused=True),
    ]


def step(
    model, opts: Sequence[torch.optim.Optimizer], ids_BT: torch.Tensor, kept: Sequence[int], bfloat16: bool
) -> float:
    """One update with only the `kept` blocks; the mean loss in nats per token."""
    with measure.only_blocks(model, kept), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        loss = model(input_ids=ids_BT, labels=ids_BT, use_cache=False).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], 1.0)
    for opt in opts:
        opt.step()
    model.zero_grad(set_to_none=True)
    return loss.item()


def train(model, tokenizer, settings: Settings) -> dict:
    """Train in place; tokens seen, seconds, steps."""
    opts, rng = optimizers(model, settings), random.Random(settings.seed)
    start, seen, steps, recent = time.monotonic(), 0, 0, []
    for ids_BT in stream.batches(tokenizer, settings.seed, settings.batch):
        progress = _progress(seen, time.monotonic() - start, settings)
        if progress >= 1:
            break
        for group in (group for opt in opts for group in opt.param_groups):
            group["lr"] = rate_at(progress, settings.rate)
        if progress < settings.short:
            ids_BT = shortened(ids_BT, tokenizer.bos_token_id)
        kept = drawn_blocks(rng, model.config.num_hidden_layers, drop_at(progress, settings.drop))
        recent.append(step(model, opts, ids_BT, kept, settings.bfloat16))
        seen, steps = seen + ids_BT[:, 1:].numel(), steps + 1
        if steps % 50 == 0:
            mean, seconds = sum(recent) / len(recent), time.monotonic() - start
            print(f"step {steps}  tokens {seen}  loss {mean:.4f}  {seen / seconds:.0f} tokens/s", flush=True)
            recent.clear()
    seconds = time.monotonic() - start
    return {"tokens": seen, "steps": steps, "seconds": round(seconds, 1), "tokens_per_second": round(seen / seconds, 1)}


def _progress(seen: int, seconds: float, settings: Settings) -> float:
    by_time = seconds / (60 * settings.minutes) if settings.minutes else 0.0
    return max(seen / settings.tokens, by_time)


@contextlib.contextmanager
def compiled_blocks(model, wanted: bool) -> Generator[None, None, None]:
    """Compile block by block: one compilation serves all of them and every drawn subset."""
    if wanted:
        for block in model.model.layers:
            block.compile(dynamic=False)
    try:
        yield
    finally:
        for block in model.model.layers:
            block._compiled_call_impl = None


def run(out: Path, settings: Settings) -> dict:
    """Train, save, measure; the content of `training.json`."""
    torch.set_num_threads(settings.threads)
    tokenizer = train_tokenizer(settings.seed)
    model = build(tokenizer, settings.seed)
    with compiled_blocks(model, settings.compiled):
        spent = train(model, tokenizer, settings)
    model.eval()
    model.save_pretrained(out)
    save(tokenizer, out)
    record = {"settings": asdict(settings), "training": spent, **measure.everything(model, tokenizer)}
    (out / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    return record


def main() -> None:
    """Command line over `Settings`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=Settings.seed)
    parser.add_argument("--tokens", type=int, default=Settings.tokens)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--batch", type=int, default=Settings.batch)
    parser.add_argument("--rate", type=float, default=Settings.rate)
    parser.add_argument("--drop", type=float, default=Settings.drop)
    parser.add_argument("--threads", type=int, default=Settings.threads)
    parser.add_argument("--float32", dest="bfloat16", action="store_false")
    parser.add_argument("--eager", dest="compiled", action="store_false")
    given = vars(parser.parse_args())
    record = run(given.pop("out"), Settings(**given))
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
