"""Memory for hidden states on a CPU, apart from that of passing activations.

States live long and activations don't; side by side in the heap, the states keep the gaps between them from
being given back or used again, and a process grows to twice what is alive. So states are copied into slots of
large slabs, and a slot is free again when nobody holds its state any more.
"""

from __future__ import annotations

import weakref

import torch

SLAB = 2**26  # bytes: what is so large comes straight from the system


class Slots:
    """Slots for tensors of one shape and type."""

    def __init__(self) -> None:
        self.free: list[torch.Tensor] = []

    def keep(self, state: torch.Tensor) -> torch.Tensor:
        """A copy of `state` in a slot; the copy is to be held itself, not through a view of it."""
        if not self.free or self.free[-1].shape != state.shape:
            self.free = list(torch.empty(self._count(state), *state.shape, dtype=state.dtype))
        slot = self.free.pop()
        held = slot.view(state.shape).copy_(state)
        weakref.finalize(held, self._given_back, slot)
        return held

    def _given_back(self, slot: torch.Tensor) -> None:
        self.free.append(slot)

    def _count(self, state: torch.Tensor) -> int:
        return max(1, -(-SLAB // max(1, state.numel() * state.element_size())))
