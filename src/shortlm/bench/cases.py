"""What is measured: every batch with every prompt and output length of a workload."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from shortlm.artifacts import Cell
from shortlm.errors import ModelError, RecipeError
from shortlm.model import ModelFiles, context_of, vocabulary
from shortlm.recipe import BenchSettings, WorkloadSettings
from shortlm.vocabulary import refuse_foreign_ids

PROMPT_SEED = 0


@dataclass(frozen=True, eq=False)  # known by itself: settings hold lists, which have no hash
class Case:
    """One cell of the grid. `text` is the prompt if it isn't made of random tokens."""

    batch: int
    prompt_tokens: int
    output_tokens: int
    workload: WorkloadSettings
    text: str | None = None

    def cell(self, role: str) -> Cell:
        """An empty one for a model."""
        return Cell(
            role=role, batch=self.batch, prompt_tokens=self.prompt_tokens, output_tokens=self.output_tokens,
            sampling=sampling_words(self.workload), rounds=self.workload.runs,
        )  # fmt: skip

    def prompt(self, tokenizer: Any, vocabulary: int, device: torch.device) -> torch.Tensor:
        """Token ids, batch x prompt_tokens; random ones are the same for every model of that vocabulary."""
        if self.text is not None:
            return torch.tensor([tokenizer(self.text).input_ids] * self.batch, device=device)
        generator = torch.Generator().manual_seed(PROMPT_SEED)
        ids_BT = torch.randint(vocabulary, (self.batch, self.prompt_tokens), generator=generator)
        return ids_BT.to(device)


def cases(settings: BenchSettings, files: list[ModelFiles]) -> list[Case]:
    """All cases in order, which every model has to run.

    Raises RecipeError for a prompt that the models' tokenizers read differently and for cases that are named twice,
    ModelError for one that is longer than a model's positions allow.
    """
    found = []
    for w in settings.workloads:
        lengths = [_length(w.prompt, files)] if w.prompt is not None else w.prompt_tokens
        found += [Case(b, t, n, w, w.prompt) for t in lengths for n in w.output_tokens for b in w.batches]
    names = [(case.batch, case.prompt_tokens, case.output_tokens) for case in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise RecipeError(f"batch {twice[0]}, {twice[1]} + {twice[2]} tokens: is measured twice; leave one out")
    for file in files:
        _refuse_beyond_context(found, file.settings.model, context_of(file.config))
    return found


def _length(prompt: str, files: list[ModelFiles]) -> int:
    """Tokens of a prompt, the same for all models."""
    lengths = {}
    for file in files:
        if file.tokenizer is None:
            raise RecipeError(f"--prompt: {file.settings.model} has no tokenizer; give --prompt-tokens instead")
        ids = file.tokenizer(prompt).input_ids
        refuse_foreign_ids(ids, vocabulary(file.config), f"{file.settings.model}: --prompt")
        lengths[file.settings.model] = len(ids)
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise RecipeError(f"--prompt: is not as many tokens for all models ({listed}); give --prompt-tokens instead")
    return next(iter(lengths.values()))


def _refuse_beyond_context(found: list[Case], name: str, context: int | None) -> None:
    for case in found:
        if context is not None and case.prompt_tokens + case.output_tokens > context:
            raise ModelError(
                f"{name}: {case.prompt_tokens} tokens of prompt and {case.output_tokens} of output are more than its "
                f"context of {context}; give smaller --prompt-tokens or --output-tokens"
            )


def sampling_words(w: WorkloadSettings) -> str:
    """How a workload draws its tokens."""
    return f"temperature {w.temperature:g}, top-k {w.top_k}, top-p {w.top_p:g}" if w.temperature else "greedy decoding"
