"""Behind the last block: final norm, head, and the cross-entropy, in chunks of the vocabulary.

The full B x T x V never exists, neither forwards nor backwards. What the model does to its logits (soft-caps,
scales) is asked of its own forward, with the head replaced by one that returns a chunk. Where that is not done
to each logit alone, or the head is no plain linear layer, the logits are computed whole.

Shapes: B sequences, T tokens, D hidden, X what enters the head, N = B (T-1) rows, V
vocabulary, C a chunk of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from shortlm.sweep.blocks import Batch, BlockCaller, predicted, replaced_forwards, widest

CHUNK = {"cpu": 2**20}  # logits at a time: few enough to stay in a processor's cache
CHUNK_ELSEWHERE = 2**27
NARROWEST = 1024


class Tail:
    """Cross-entropy of states that have passed the last block."""

    def __init__(self, caller: BlockCaller):
        self.caller, self.head = caller, caller.head
        self.way: str | None = None  # "plain", "each" (something is done to each logit) or "whole"; found at first use

    def loaded(self) -> AbstractContextManager[object]:
        """The head is in memory inside; everything below is called there."""
        return self.caller.disk.head_in_memory() if self.caller.disk else nullcontext()

    def nats(self, h_BTD: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Cross-entropy of each next token, B x (T-1), float64 (where there is such a type), 0 on padding."""
        if self._way(h_BTD, batch) == "whole":
            return token_nats(self.caller.tail(h_BTD, batch), batch)
        with torch.no_grad():
            lse_BT, target_BT = self._sums(self._entering(h_BTD, batch), h_BTD, batch)
        return (lse_BT - target_BT).to(widest(h_BTD.device)) * predicted(batch)

    def input_grads(self, h_BTD: torch.Tensor, batch: Batch, weights_B: torch.Tensor) -> torch.Tensor:
        """Gradient with respect to h_BTD of the sum over sequences of weights_B times their summed cross-entropy."""
        leaf_BTD = h_BTD.detach().requires_grad_(True)
        with torch.enable_grad():
            if self._way(h_BTD, batch) == "whole":
                (token_nats(self.caller.tail(leaf_BTD, batch), batch).sum(1) * weights_B).sum().backward()
            else:
                entering_BTX = self._entering(leaf_BTD, batch)
                entering_BTX.backward(self._head_grads(entering_BTX.detach(), h_BTD, batch, weights_B))
        assert leaf_BTD.grad is not None
        return leaf_BTD.grad

    def _head_grads(
        self, entering_BTX: torch.Tensor, h_BTD: torch.Tensor, batch: Batch, weights_B: torch.Tensor
    ) -> torch.Tensor:
        """softmax - onehot, chunk by chunk, taken back through the head; summed in float32."""
        lse_BT, _ = self._sums(entering_BTX, h_BTD, batch)
        scale_BT = predicted(batch) * weights_B[:, None]
        grad_BTX = torch.zeros_like(entering_BTX, dtype=torch.float32)
        leaf_BTX = entering_BTX.detach().requires_grad_(True)
        for start, logits_BTC in self._chunks(leaf_BTX, h_BTD, batch):
            inside_BT, place_BT = _places(batch, start, logits_BTC.shape[-1])
            share_BTC = (logits_BTC.detach().float() - lse_BT[..., None]).exp_()
            share_BTC.scatter_add_(2, place_BT[..., None], -inside_BT[..., None].float())
            share_BTC *= scale_BT[..., None]
            grad_BTX += torch.autograd.grad(logits_BTC, leaf_BTX, share_BTC.to(logits_BTC.dtype))[0]
        return grad_BTX.to(entering_BTX.dtype)

    def _sums(self, entering_BTX: torch.Tensor, h_BTD: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """log sum exp over the vocabulary, and the logit of the next token: both B x (T-1), float32."""
        lse_BT = target_BT = torch.tensor(0.0)
        with torch.no_grad():
            for start, logits_BTC in self._chunks(entering_BTX, h_BTD, batch):
                inside_BT, place_BT = _places(batch, start, logits_BTC.shape[-1])
                logits_BTC = logits_BTC.float()
                picked_BT = logits_BTC.gather(2, place_BT[..., None])[..., 0] * inside_BT
                sum_BT = logits_BTC.logsumexp(-1)
                lse_BT, target_BT = (
                    (torch.logaddexp(lse_BT, sum_BT), target_BT + picked_BT) if start else (sum_BT, picked_BT)
                )
        return lse_BT, target_BT

    def _chunks(
        self, entering_BTX: torch.Tensor, h_BTD: torch.Tensor, batch: Batch
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """First vocabulary entry and logits_BTC of each chunk; of all tokens but the last, which predicts nothing."""
        weight, bias, shape = self.head.weight, self.head.bias, entering_BTX[:, :-1].shape
        rows_NX = entering_BTX[:, :-1].flatten(0, 1)  # a strided product would copy the weight for every sequence
        width = max(NARROWEST, CHUNK.get(self.caller.device.type, CHUNK_ELSEWHERE) // len(rows_NX))
        for start in range(0, len(weight), width):
            part = slice(start, start + width)
            logits_BTC = F.linear(rows_NX, weight[part], None if bias is None else bias[part]).view(*shape[:2], -1)
            yield start, logits_BTC if self.way == "plain" else self._finished(logits_BTC, h_BTD, batch)

    def _entering(self, h_BTD: torch.Tensor, batch: Batch) -> torch.Tensor:
        """What the head is called with: entering_BTX."""
        seen: list[torch.Tensor] = []

        def record(entering_BTX: torch.Tensor) -> torch.Tensor:
            seen.append(entering_BTX)
            return entering_BTX.new_zeros(*entering_BTX.shape[:-1], 1)

        self._with_head(record, h_BTD, batch)
        return seen[0]

    def _finished(self, logits_BTC: torch.Tensor, h_BTD: torch.Tensor, batch: Batch) -> torch.Tensor:
        """What the model makes of these logits behind its head."""
        return self._with_head(lambda _: logits_BTC, h_BTD, batch)

    def _with_head(self, head: Callable[[torch.Tensor], torch.Tensor], h_BTD: torch.Tensor, batch: Batch) -> Any:
        with replaced_forwards([self.head], lambda i, original: head):
            return self.caller.tail(h_BTD, batch)

    def _way(self, h_BTD: torch.Tensor, batch: Batch) -> str:
        if self.way is None:
            with torch.no_grad():
                self.way = self._found_way(h_BTD, batch)
        return self.way

    def _found_way(self, h_BTD: torch.Tensor, batch: Batch) -> str:
        if type(self.head).forward is not nn.Linear.forward:
            return "whole"
        try:
            entering_BTX = self._entering(h_BTD, batch)
            probe_BTC = torch.linspace(-60, 60, 3 * batch.ids_BT.numel(), device=h_BTD.device).to(h_BTD.dtype)
            probe_BTC = probe_BTC.view(*batch.ids_BT.shape, 3)
            out_BTC = self._finished(probe_BTC, h_BTD, batch)
            alone_BTC = self._finished(probe_BTC[:, :, :1], h_BTD, batch)
        except (IndexError, RuntimeError, ValueError):  # the model minds the vocabulary's size
            return "whole"
        if entering_BTX.shape[:2] != batch.ids_BT.shape or out_BTC.shape != probe_BTC.shape:
            return "whole"
        if torch.equal(out_BTC, probe_BTC):
            return "plain"
        return "each" if torch.equal(out_BTC[:, :, :1], alone_BTC) else "whole"


def _places(batch: Batch, start: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Which next tokens are in the chunk, and where in it (0 for those that are not): both B x (T-1)."""
    place_BT = batch.ids_BT[:, 1:] - start
    inside_BT = (place_BT >= 0) & (place_BT < width)
    return inside_BT, place_BT * inside_BT


def token_nats(logits_BTV: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Cross-entropy of each next token, B x (T-1), float64, 0 on padding. One sequence at a time in float32."""
    rows = [
        F.cross_entropy(logits_TV[:-1].float(), ids_T[1:], reduction="none")
        for logits_TV, ids_T in zip(logits_BTV, batch.ids_BT, strict=True)
    ]
    return torch.stack(rows).to(widest(logits_BTV.device)) * predicted(batch)
