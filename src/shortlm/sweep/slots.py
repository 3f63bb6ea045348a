"""Memory for hidden states on a CPU, apart from that of passing activations.

States live long and activations don't; side by side in the heap, the states keep the gaps between them from
being given back or used again, and a process grows to twice what is alive. So states are copied into slots of
large slabs, and a slot is free again when nobody holds its state any more.
"""

from __future__ import annotations

import weakref

import numpy
import torch

SLAB = 2**26  # bytes: what is so large comes straight from the system


class Slots:
    """Slots for tensors of one shape and type."""

    def __init__(self) -> None:
        self.free: list[numpy.ndarray] = []

    def keep(self, state: torch.Tensor) -> torch.Tensor:
        """A copy of `state` in a slot, which is free again when neither it nor any view of it is held."""
        size = state.numel() * state.element_size()
        if not self.free or self.free[-1].nbytes != size:
            self.free[:] = list(numpy.empty((max(1, -(-SLAB // max(1, size))), size), dtype=numpy.uint8))
        slot = self.free.pop()
        lent = slot[:]  # the tensor's storage holds on to this array, and so do the storages of its views
        weakref.finalize(lent, self.free.append, slot).atexit = False
        return torch.from_numpy(lent).view(state.dtype).view(state.shape).copy_(state)
