"""Texts that the model writes, so that they can be read beside the original's: greedily, or drawn with a fixed seed."""

from __future__ import annotations

from typing import Any

import torch

from shortlm.artifacts import Sample
from shortlm.errors import ModelError
from shortlm.model import OpenModel, quiet, sampling_options
from shortlm.recipe import EvalSettings

PROMPT_TOKENS = 16


def sample_prompts(opened: OpenModel, settings: EvalSettings, first_window: list[int]) -> list[list[int]]:
    """Token ids of every prompt (or of the beginning of the first window); empty if no samples are to be written.

    Raises ModelError if the model can't generate, or if a prompt with its sample is longer than the context.
    """
    wanted = settings.samples and settings.new_tokens and (settings.prompts or first_window)
    if not wanted or opened.tokenizer is None or opened.disk is not None:  # too slow from disk
        return []
    if not opened.model.can_generate():
        raise ModelError(f"{opened.facts.name}: can't generate text; measure without samples: --samples 0")
    prompts = [opened.tokenizer(prompt).input_ids for prompt in settings.prompts] or [first_window[:PROMPT_TOKENS]]
    opened.refuse_beyond_context(max(map(len, prompts)), settings.new_tokens, "--new-tokens")
    return prompts


def write_samples(
    opened: OpenModel, settings: EvalSettings, prompts: list[list[int]]
) -> tuple[list[Sample], list[list[int]]]:
    """Samples of every prompt, and the ids that were written."""
    tokenizer, samples, written = opened.tokenizer, [], []
    for ids in prompts:
        prompt = tokenizer.decode(ids, skip_special_tokens=True)
        for new in _continued(opened, ids, settings):
            written.append(new)
            samples.append(Sample(prompt=prompt, text=_new_text(tokenizer, ids, new, prompt)))
    return samples, written


def _new_text(tokenizer: Any, ids: list[int], new: list[int], prompt: str) -> str:
    """What stands behind the prompt. Decoded alone, some tokenizers would leave out the space before it."""
    text = tokenizer.decode([*ids, *new], skip_special_tokens=True)
    return text[len(prompt) :] if text.startswith(prompt) else tokenizer.decode(new, skip_special_tokens=True)


def _continued(opened: OpenModel, ids: list[int], settings: EvalSettings) -> list[list[int]]:
    """New ids of every sample, up to the end-of-text token."""
    device, tokenizer = opened.device, opened.tokenizer
    count = settings.samples if settings.temperature else 1  # greedy ones would all be the same
    ids_BT = torch.tensor([ids] * count, device=device)
    options: Any = sampling_options(opened.model, settings.temperature, settings.top_k, settings.top_p)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0
    with torch.no_grad(), quiet(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(settings.sample_seed)
        out_BT = opened.model.generate(
            input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT), max_new_tokens=settings.new_tokens,
            pad_token_id=pad, **options,
        )  # fmt: skip
    ends = opened.model.generation_config.eos_token_id
    ends = set(ends) if isinstance(ends, list) else {ends}
    return [_up_to_end(row, ends) for row in out_BT[:, len(ids) :].tolist()]


def _up_to_end(ids: list[int], ends: set[int | None]) -> list[int]:
    """Behind the end-of-text token is padding."""
    return ids[: next((i for i, token in enumerate(ids) if token in ends), len(ids))]
