"""States behind the first blocks, kept from one call of the sweep to the next.

A search asks for many sets that differ from the current one in a unit or two. What they share with it need not be
computed again: the states along the current set's path are kept, as many as fit, spread over the blocks.

Shapes: B sequences, T tokens, D hidden.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from shortlm.sweep.decisions import DROP, Path
from shortlm.sweep.slots import Slots


class KeptPrefixes:
    """At most `most` bytes of states of so many tokens in all batches, by batch and prefix."""

    def __init__(self, most: int, tokens: int):
        self.most, self.tokens = most, tokens
        self.wanted: frozenset[Path] = frozenset()
        self.states: dict[int, dict[Path, torch.Tensor]] = {}
        self.slots = Slots()

    def want(self, paths: Sequence[Path], token_bytes: int) -> None:
        """What to keep of the call that goes on; `token_bytes` is the state of a token.

        A state behind a block that is dropped is the one before it, so it need not be kept.
        """
        prefixes = sorted(
            {path[:i] for path in paths for i in range(1, len(path)) if path[i - 1] != DROP}, key=lambda p: (len(p), p)
        )
        room = min(len(prefixes), self.most // max(1, token_bytes * self.tokens))
        wanted = frozenset(prefixes[len(prefixes) * k // room] for k in range(room))
        if wanted != self.wanted:
            self.wanted = wanted
            for states in self.states.values():
                for prefix in states.keys() - wanted:
                    del states[prefix]

    def begin(self, batch: int) -> dict[Path, torch.Tensor]:
        """What is there for a batch, which is now walked."""
        return self.states.pop(batch, {})

    def end(self, batch: int, start: dict[Path, torch.Tensor]) -> None:
        """The batch is walked: what it began with is kept as far as it is still wanted."""
        self.states.setdefault(batch, {}).update({p: state for p, state in start.items() if p in self.wanted})

    def offer(self, batch: int, prefix: Path, h_BTD: torch.Tensor) -> None:
        """A state that the sweep has come to."""
        if prefix in self.wanted and prefix not in self.states.setdefault(batch, {}):
            self.states[batch][prefix] = self.slots.keep(h_BTD) if h_BTD.device.type == "cpu" else h_BTD
