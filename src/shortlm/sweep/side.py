"""All windows go through a block before the next block comes; what a module takes and gives meanwhile is noted.

Shapes: B sequences, T tokens, D hidden.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from shortlm.sweep.blocks import Batch, BlockCaller


@dataclass
class Side:
    """One model, with the states of some windows in it."""

    caller: BlockCaller
    batches: list[Batch]
    states: list[torch.Tensor]

    @classmethod
    def of(cls, caller: BlockCaller, windows: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> Side:
        """Before the first block."""
        with torch.no_grad():
            batches = [caller.prepare(*batch) for batch in windows]
        states = [batch.h_BTD for batch in batches if batch.h_BTD is not None]
        for batch in batches:
            batch.h_BTD = None
        return cls(caller, batches, states)

    def call(self, i: int, k: int, decision: int = 0) -> torch.Tensor:
        """The state of batch k behind block i, or behind what a decision leaves of it."""
        with torch.no_grad():
            return self.caller(i, self.states[k], self.batches[k], decision)

    def pass_block(self, i: int) -> None:
        """All windows go through block i."""
        for k in range(len(self.batches)):
            self.states[k] = self.call(i, k)


@contextmanager
def noted(module: Any, changed: torch.Tensor | None = None) -> Generator[dict[str, torch.Tensor], None, None]:
    """Inside, the last input and output of a module are noted; `changed` is added to its output."""
    seen: dict[str, torch.Tensor] = {}

    def note(module: Any, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor | None:
        seen["input"], seen["output"] = args[0], output
        return None if changed is None else output + changed

    hook = module.register_forward_hook(note)
    try:
        yield seen
    finally:
        hook.remove()
