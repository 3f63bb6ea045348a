"""What is measured: every batch with every prompt and output length of a workload."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from shortlm.errors import ModelError, RecipeError
from shortlm.recipe import BenchSettings, WorkloadSettings

PROMPT_SEED = 0


@dataclass(frozen=True, eq=False)  # known by itself: settings hold lists, which have no hash
class Case:
    """One cell of the grid. `text` is the prompt if it isn't made of random tokens."""

    batch: int
    prompt_tokens: int
    output_tokens: int
    workload: WorkloadSettings
    text: str | None = None

    def prompt(self, tokenizer: Any, vocabulary: int, device: torch.device) -> torch.Tensor:
        """Token ids, batch x prompt_tokens; random ones are the same for every model of that vocabulary."""
        if self.text is not None:
            return torch.tensor([tokenizer(self.text).input_ids] * self.batch, device=device)
        generator = torch.Generator().manual_seed(PROMPT_SEED)
        ids_BT = torch.randint(vocabulary, (self.batch, self.prompt_tokens), generator=generator)
        return ids_BT.to(device)


def cases(settings: BenchSettings, tokenizer: Any) -> list[Case]:
    """All cases in order. A prompt of text is as long as the first model's tokenizer makes it."""
    found = []
    for w in settings.workloads:
        if w.prompt is not None and tokenizer is None:
            raise RecipeError("--prompt: the model has no tokenizer; give --prompt-tokens instead")
        lengths = [len(tokenizer(w.prompt).input_ids)] if w.prompt is not None else w.prompt_tokens
        found += [Case(b, t, n, w, w.prompt) for t in lengths for n in w.output_tokens for b in w.batches]
    return found


def refuse_beyond_context(found: list[Case], name: str, context: int | None) -> None:
    """Raise ModelError for a case that is longer than the model's positions allow."""
    for case in found:
        length = case.prompt_tokens + case.output_tokens
        if context is not None and length > context:
            raise ModelError(
                f"{name}: {case.prompt_tokens} tokens of prompt and {case.output_tokens} of output are more than its "
                f"context of {context}; give smaller --prompt-tokens or --output-tokens"
            )
