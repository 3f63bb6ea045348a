"""The check of a GGUF file: llama.cpp reads a few texts as the same tokens, and greedy decoding writes the same.

Shapes: T tokens, V vocabulary.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from shortlm.artifacts import Record
from shortlm.errors import ExportError
from shortlm.export.working import work
from shortlm.model import ModelFiles, context_of, quiet

PROMPTS = ("Once upon a time there was a", "The weather in March is", "12 + 7 = 19, it's so. 'Why?' she said,")
TOKENS = 24
# By how much (logits of transformers) a token of llama.cpp's may be behind the best one where both part. Its cache is
# of 16 bits whatever the weights are. Of fewer bits than 8 nothing is asked: they change the model.
NEAR_TIE = {"f32": 0.1, "f16": 0.1, "bf16": 0.5, "q8_0": 0.5}


class Agreement(Record):
    """How far llama.cpp writes what transformers writes."""

    prompts: int
    tokens: int
    same: int
    largest_gap: float | None = None
    llama_cpp: str


def check_gguf(files: ModelFiles, python: Path, gguf: Path, outtype: str) -> Agreement:
    """Raises ExportError where llama.cpp reads or computes something else than transformers."""
    ids = [files.tokenizer(text).input_ids for text in PROMPTS]
    tokens = min(TOKENS, (context_of(files.config) or TOKENS * 4) // 2)
    job = {"model": str(gguf.resolve()), "prompts": PROMPTS, "ids": ids, "tokens": tokens}
    found = work(python, "llama.py", job, "asking llama.cpp")
    _refuse_other_ids(files, ids, found["read"])
    model = files.open(streamed=False).model
    partings = [_parting(model, i, w) for i, w in zip(ids, found["written"], strict=True)]
    gaps = [gap for _, gap in partings if gap is not None]
    if gaps and max(gaps) > NEAR_TIE.get(outtype, float("inf")):
        raise ExportError(
            f"{files.settings.model}: llama.cpp computes something else from the file than transformers (it prefers a "
            f"token whose logit is {max(gaps):.2g} below the best one); --no-check writes it all the same"
        )
    return Agreement(
        prompts=len(ids), tokens=tokens * len(ids), same=sum(same for same, _ in partings),
        largest_gap=max(gaps, default=None), llama_cpp=f"llama-cpp-python {found['version']}",
    )  # fmt: skip


def _refuse_other_ids(files: ModelFiles, ids: list[list[int]], read: list[list[int]]) -> None:
    for text, ours, theirs in zip(PROMPTS, ids, read, strict=True):
        if ours != theirs:
            raise ExportError(
                f"{files.settings.model}: llama.cpp reads {text!r} as other tokens ({theirs[:8]}) than its tokenizer "
                f"({ours[:8]}); --no-check writes the file all the same"
            )


def _parting(model: Any, ids: list[int], written: list[int]) -> tuple[int, float | None]:
    """How many tokens are the same, and by how much the first other one is behind; None if all are the same."""
    logits_TV = _logits(model, [*ids, *written[:-1]])[len(ids) - 1 :]
    best_T = logits_TV.argmax(-1)
    for t, token in enumerate(written):
        if int(best_T[t]) != token:
            return t, float(logits_TV[t].max() - logits_TV[t, token])
    return len(written), None


@torch.no_grad()
def _logits(model: Any, ids: list[int]) -> torch.Tensor:
    """In one call: up to a parting each token is the best one, so it is what transformers writes too."""
    device = model.get_input_embeddings().weight.device
    with quiet():
        return model(torch.tensor([ids], device=device)).logits[0].float().cpu()
