"""A text that the model writes, greedily, so that it can be read beside the original's."""

from __future__ import annotations

from typing import Any

import torch

from shortlm.artifacts import Sample
from shortlm.model import quiet

PROMPT_TOKENS = 16


def write_sample(model: Any, tokenizer: Any, prompt_ids: list[int], new_tokens: int) -> Sample:
    """Continue `prompt_ids` by up to `new_tokens` tokens, always taking the likeliest."""
    ids_BT = torch.tensor([prompt_ids], device=model.get_input_embeddings().weight.device)
    with torch.no_grad(), quiet():
        out_BT = model.generate(
            input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT), max_new_tokens=new_tokens, do_sample=False,
            pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id or 0,
        )  # fmt: skip
    new = out_BT[0, len(prompt_ids) :].tolist()
    prompt = tokenizer.decode(prompt_ids, skip_special_tokens=True)
    return Sample(prompt=prompt, text=tokenizer.decode(new, skip_special_tokens=True))


def prompt_ids(tokenizer: Any, prompt: str, first_window: list[int]) -> list[int]:
    """The given prompt, or the beginning of the first evaluation window."""
    return tokenizer(prompt).input_ids if prompt else first_window[:PROMPT_TOKENS]
