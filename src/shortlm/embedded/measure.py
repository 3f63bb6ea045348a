"""How good the embedded model is, and how much of it survives without some of its blocks.

Shapes: B windows, T tokens of a window. Losses are nats per token, counted over all tokens but BOS and padding.
"""

from __future__ import annotations

import contextlib
import math
import os
import platform
from collections.abc import Generator, Sequence
from pathlib import Path

import tokenizers
import torch
import transformers

from shortlm.embedded import tasks
from shortlm.embedded.stream import HeldOut, held_out

HELD_OUT_SEED = 1_000_003
HELD_OUT_WINDOWS = 200
QUESTIONS = 200
QUESTION_SEED = 2_000_003
SPARED_FIRST, SPARED_LAST = 4, 2
"""Blocks at the two ends that the pruning figure leaves alone, as published recipes do."""


@contextlib.contextmanager
def only_blocks(model, kept: Sequence[int]) -> Generator[None, None, None]:
    """Let `model` run with only the `kept` blocks, then give it all of them back."""
    blocks = model.model.layers
    model.model.layers = torch.nn.ModuleList(blocks[i] for i in kept)
    try:
        yield
    finally:
        model.model.layers = blocks


@torch.inference_mode()
def mean_loss(model, text: HeldOut, batch: int = 20) -> float:
    """Mean loss over the labelled tokens of `text`, nats."""
    total = 0.0
    for ids_BT, labels_BT in zip(text.ids_BT.split(batch), text.labels_BT.split(batch), strict=True):
        logits_BTV = model(input_ids=ids_BT, use_cache=False).logits
        wanted_N, logits_NV = labels_BT[:, 1:].flatten(), logits_BTV[:, :-1].flatten(0, 1)
        total += torch.nn.functional.cross_entropy(logits_NV, wanted_N, reduction="sum").item()
    return total / text.tokens


def loss_without(model, text: HeldOut, dropped: Sequence[int]) -> float:
    """Mean loss with the `dropped` blocks left out, nats per token."""
    kept = [i for i in range(len(model.model.layers)) if i not in dropped]
    with only_blocks(model, kept):
        return mean_loss(model, text)


def least_important(model, text: HeldOut, count: int) -> list[int]:
    """The `count` inner blocks whose single removal costs least, in depth order."""
    inner = range(SPARED_FIRST, len(model.model.layers) - SPARED_LAST)
    cost = {i: loss_without(model, text, [i]) for i in inner}
    return sorted(sorted(cost, key=cost.__getitem__)[:count])


def language(model, text: HeldOut) -> dict:
    """Held-out perplexity beside the best that is possible on the same text."""
    loss = mean_loss(model, text)
    return {
        "seed": HELD_OUT_SEED,
        "windows": len(text.ids_BT),
        "tokens": text.tokens,
        "nats_per_token": round(loss, 5),
        "perplexity": round(math.exp(loss), 5),
        "entropy_nats_per_token": round(text.nats_per_token, 5),
        "entropy_perplexity": round(math.exp(text.nats_per_token), 5),
        "perplexity_ratio": round(math.exp(loss - text.nats_per_token), 5),
    }


def pruned(model, text: HeldOut, count: int = 4) -> dict:
    """What dropping the `count` least important blocks together does to the held-out loss."""
    dropped = least_important(model, text, count)
    loss = loss_without(model, text, dropped)
    return {
        "dropped": dropped,
        "chosen_by": "loss after single removal, first four and last two blocks spared",
        "nats_per_token": round(loss, 5),
        "perplexity": round(math.exp(loss), 5),
    }


def task_accuracies(model, tokenizer, n: int = QUESTIONS) -> dict:
    """Accuracy of every task beside chance."""
    return {
        task: {
            "accuracy": round(tasks.accuracy(model, tokenizer, tasks.questions(task, n, QUESTION_SEED)), 4),
            "chance": round(tasks.chance(task), 4),
            "n": n,
        }
        for task in tasks.TASKS
    }


def machine() -> dict:
    """Where the figures were taken, without names of hosts or folders."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
    }


def architecture(model) -> dict:
    """Shape and size of the model."""
    config = model.config
    named = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    return {
        "class": type(model).__name__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "vocab_size": config.vocab_size,
        **{name: getattr(config, name) for name in named},
    }


def everything(model, tokenizer) -> dict:
    """All measured parts of `training.json`."""
    text = held_out(tokenizer, HELD_OUT_SEED, HELD_OUT_WINDOWS)
    return {
        "architecture": architecture(model),
        "held_out": language(model, text),
        "tasks": task_accuracies(model, tokenizer),
        "without_4_blocks": pruned(model, text),
        "machine": machine(),
    }
