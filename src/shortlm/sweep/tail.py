"""Behind the last block: final norm, head, and the cross-entropy, in chunks of the vocabulary.

The full B x T x V never exists, neither forwards nor backwards. What the model does to its logits (soft-caps,
scales) is asked of its own forward, with the head replaced by one that returns a chunk. Where that is not done
to each logit alone, or the head is no plain linear layer, the logits are computed whole. What enters the head is asked
of the model's forward too, unless the final norm alone gives the very same.

Shapes: B sequences, T tokens, D hidden, X what enters the head, N = B (T-1) rows, V
vocabulary, C a chunk of it, K tokens that are asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from shortlm.sweep.blocks import Batch, BlockCaller, predicted, widest
from shortlm.sweep.dense import TopTokens
from shortlm.sweep.replaced import replaced_forwards

CHUNK = {"cpu": 2**20}  # logits at a time: few enough to stay in a processor's cache
CHUNK_ELSEWHERE = 2**27
NARROWEST = 1024


@dataclass
class TailForm:
    """What stands between the last block and the logits, found out once for each model."""

    kind: str  # "plain", "each" (something is done to each logit) or "whole"
    norm_alone: bool = False  # between the last block and the head stands the final norm, or nothing
    small: Batch | None = None  # a batch of two tokens, on which logits are finished


class Tail:
    """Cross-entropy of states that have passed the last block."""

    def __init__(self, caller: BlockCaller):
        self.caller, self.head = caller, caller.head

    def loaded(self) -> AbstractContextManager[object]:
        """The head is in memory inside; everything below is called there."""
        return self.caller.disk.head_in_memory() if self.caller.disk else nullcontext()

    def nats(self, h_BTD: torch.Tensor, batch: Batch, dense: TopTokens | None = None) -> torch.Tensor:
        """Cross-entropy of each next token, B x (T-1), float64 (where there is such a type), 0 on padding. With
        `dense`, KL divergence to what the whole model says instead.
        """
        with torch.no_grad():
            if dense is not None:
                lse_BT, logits_BTK = self._sums_of(h_BTD, batch, dense.ids_BTK.to(h_BTD.device, torch.int64))
                nats_BT = dense.divergence(lse_BT.cpu(), logits_BTK.cpu())
                return nats_BT * predicted(batch).to(nats_BT.device)
            if self.form(h_BTD, batch).kind == "whole":
                return token_nats(self.caller.tail(h_BTD, batch), batch)
            return self.nats_at_head(self._entering(h_BTD, batch), batch)

    def nats_of_several(
        self, states: Sequence[torch.Tensor], batch: Batch, dense: TopTokens | None = None
    ) -> Sequence[torch.Tensor]:
        """The same of several states of one batch, in one call."""
        count = len(states)
        if count < 2:
            return [self.nats(h_BTD, batch, dense) for h_BTD in states]
        again = dense and TopTokens(dense.ids_BTK.repeat(count, 1, 1), dense.log_BTK.repeat(count, 1, 1))
        nats_NT = self.nats(torch.cat(tuple(states)), self.caller.repeated(batch, count), again)
        return nats_NT.split(len(batch.ids_BT))

    def top(self, h_BTD: torch.Tensor, batch: Batch, top_k: int) -> TopTokens:
        """The likeliest next tokens after every token but the last, and their log-probabilities."""
        with torch.no_grad():
            best, ids, sums = [], [], []
            for start, logits_BTC in self._all_logits(h_BTD, batch):
                values, places = logits_BTC.float().topk(min(top_k, logits_BTC.shape[-1]), dim=-1)
                best, ids = [*best, values], [*ids, places + start]
                sums.append(logits_BTC.float().logsumexp(-1))
                if len(best) > 1:  # never more than two chunks' best
                    values, places = torch.cat(best, -1).topk(min(top_k, sum(b.shape[-1] for b in best)), dim=-1)
                    best, ids = [values], [torch.cat(ids, -1).gather(-1, places)]
            lse_BT = torch.stack(sums).logsumexp(0)
            return TopTokens(ids[0].int().cpu(), (best[0] - lse_BT[..., None]).cpu())

    def nats_at_head(self, entering_BTX: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The same of what enters the head. Not for models whose logits have to be made whole."""
        lse_BT, target_BT1 = self._sums(entering_BTX, batch.ids_BT[:, 1:, None])
        return (lse_BT - target_BT1[..., 0]).to(widest(entering_BTX.device)) * predicted(batch)

    def input_grads(self, h_BTD: torch.Tensor, batch: Batch, weights_B: torch.Tensor) -> torch.Tensor:
        """Gradient with respect to h_BTD of the sum over sequences of weights_B times their summed cross-entropy."""
        leaf_BTD = h_BTD.detach().requires_grad_(True)
        kind = self.form(h_BTD, batch).kind
        with torch.enable_grad():
            if kind == "whole":
                (token_nats(self.caller.tail(leaf_BTD, batch), batch).sum(1) * weights_B).sum().backward()
            else:
                entering_BTX = self._entering(leaf_BTD, batch)
                entering_BTX.backward(self._head_grads(entering_BTX.detach(), batch, weights_B))
        assert leaf_BTD.grad is not None
        return leaf_BTD.grad

    def _head_grads(self, entering_BTX: torch.Tensor, batch: Batch, weights_B: torch.Tensor) -> torch.Tensor:
        """softmax - onehot, chunk by chunk, taken back through the head; summed in float32."""
        lse_BT, _ = self._sums(entering_BTX, batch.ids_BT[:, 1:, None])
        scale_BT = predicted(batch) * weights_B[:, None]
        grad_BTX = torch.zeros_like(entering_BTX, dtype=torch.float32)
        leaf_BTX = entering_BTX.detach().requires_grad_(True)
        for start, logits_BTC in self._chunks(leaf_BTX):
            inside_BT1, place_BT1 = _places(batch.ids_BT[:, 1:, None], start, logits_BTC.shape[-1])
            share_BTC = (logits_BTC.detach().float() - lse_BT[..., None]).exp_()
            share_BTC.scatter_add_(2, place_BT1, -inside_BT1.float())
            share_BTC *= scale_BT[..., None]
            grad_BTX += torch.autograd.grad(logits_BTC, leaf_BTX, share_BTC.to(logits_BTC.dtype))[0]
        return grad_BTX.to(entering_BTX.dtype)

    def _sums(self, entering_BTX: torch.Tensor, wanted_BTK: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """log sum exp of the logits, B x (T-1), and the logits of these tokens, B x (T-1) x K: both float32."""
        return _summed(self._chunks(entering_BTX), wanted_BTK)

    def _sums_of(
        self, h_BTD: torch.Tensor, batch: Batch, wanted_BTK: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The same of a state that has passed the last block."""
        return _summed(self._all_logits(h_BTD, batch), wanted_BTK)

    def _all_logits(self, h_BTD: torch.Tensor, batch: Batch) -> Iterable[tuple[int, torch.Tensor]]:
        """In chunks, or whole where they have to be made whole."""
        if self.form(h_BTD, batch).kind == "whole":
            return [(0, self.caller.tail(h_BTD, batch)[:, :-1])]
        return self._chunks(self._entering(h_BTD, batch))

    def _chunks(self, entering_BTX: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """First vocabulary entry and logits_BTC of each chunk; of all tokens but the last, which predicts nothing."""
        weight, bias, shape = self.head.weight, self.head.bias, entering_BTX[:, :-1].shape
        rows_NX = entering_BTX[:, :-1].flatten(0, 1)  # a strided product would copy the weight for every sequence
        width = max(NARROWEST, CHUNK.get(self.caller.device.type, CHUNK_ELSEWHERE) // len(rows_NX))
        plain = self.caller.tail_form.kind == "plain"
        for start in range(0, len(weight), width):
            part = slice(start, start + width)
            logits_NC = F.linear(rows_NX, weight[part], None if bias is None else bias[part])
            yield start, (logits_NC if plain else self._finished(logits_NC)).view(*shape[:2], -1)

    def _entering(self, h_BTD: torch.Tensor, batch: Batch) -> torch.Tensor:
        """What the head is called with: entering_BTX. Where nothing but the final norm comes before, by that alone."""
        return self._normed(h_BTD) if self.form(h_BTD, batch).norm_alone else self._by_forward(h_BTD, batch)

    def _normed(self, h_BTD: torch.Tensor) -> torch.Tensor:
        return h_BTD if self.caller.norm is None else self.caller.norm(h_BTD)

    def _by_forward(self, h_BTD: torch.Tensor, batch: Batch) -> torch.Tensor:
        with self.caller.ending_in(h_BTD):
            return self.caller.head_input(batch)

    def _finished(self, logits_NC: torch.Tensor) -> torch.Tensor:
        """What the model makes of each of these logits behind its head; where they stand doesn't matter to it."""
        return self._behind_head(logits_NC.view(1, 1, -1), self.caller.tail_form.small).view(logits_NC.shape)

    def _behind_head(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        assert batch.h_BTD is not None
        with replaced_forwards([self.head], lambda i, original: lambda _: logits):
            return self.caller.tail(batch.h_BTD, batch)

    def form(self, h_BTD: torch.Tensor, batch: Batch) -> TailForm:
        """Found out at first use, from a state and its batch."""
        if self.caller.tail_form is None:
            with torch.no_grad():
                self.caller.tail_form = self._found(h_BTD, batch)
        return self.caller.tail_form

    def _found(self, h_BTD: torch.Tensor, batch: Batch) -> TailForm:
        if type(self.head).forward is not nn.Linear.forward:
            return TailForm("whole")
        small = self.caller.prepare(batch.ids_BT[:1, :2], torch.ones_like(batch.keep_BT[:1, :2]), padded=False)
        probe_BTC = torch.linspace(-60, 60, 6, device=h_BTD.device).to(h_BTD.dtype).view(1, 2, 3)
        try:
            whole_BTC = self._behind_head(probe_BTC, small)
            alone_BTC = self._behind_head(probe_BTC.view(1, 1, -1), small)
        except (IndexError, RuntimeError, ValueError):  # the model minds the vocabulary's size
            return TailForm("whole")
        if whole_BTC.shape != probe_BTC.shape or not torch.equal(alone_BTC.flatten(), whole_BTC.flatten()):
            return TailForm("whole")
        kind = "plain" if torch.equal(whole_BTC, probe_BTC) else "each"
        return TailForm(kind, self._is_norm_alone(h_BTD, batch), small)

    def _is_norm_alone(self, h_BTD: torch.Tensor, batch: Batch) -> bool:
        """Seen on a real state and on one of other values: the norm's output is what enters the head, bit for bit."""
        other_BTD = torch.linspace(-3, 5, h_BTD.numel(), device=h_BTD.device).to(h_BTD.dtype).view(h_BTD.shape)
        pairs = ((self._normed(x), self._by_forward(x, batch)) for x in (h_BTD, other_BTD))
        return all(a.shape == b.shape and torch.equal(a, b) for a, b in pairs)


def _summed(chunks: Iterable[tuple[int, torch.Tensor]], wanted_BTK: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    lse_BT = picked_BTK = torch.tensor(0.0)
    with torch.no_grad():
        for start, logits_BTC in chunks:
            inside_BTK, place_BTK = _places(wanted_BTK, start, logits_BTC.shape[-1])
            logits_BTC = logits_BTC.float()
            found_BTK = logits_BTC.gather(2, place_BTK) * inside_BTK
            sum_BT = logits_BTC.logsumexp(-1)
            lse_BT, picked_BTK = (
                (torch.logaddexp(lse_BT, sum_BT), picked_BTK + found_BTK) if start else (sum_BT, found_BTK)
            )
    return lse_BT, picked_BTK


def _places(wanted_BTK: torch.Tensor, start: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Which of these tokens are in the chunk, and where in it (0 for those that are not): both B x (T-1) x K."""
    place_BTK = wanted_BTK - start
    inside_BTK = (place_BTK >= 0) & (place_BTK < width)
    return inside_BTK, place_BTK * inside_BTK


def token_nats(logits_BTV: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Cross-entropy of each next token, B x (T-1), float64, 0 on padding. One sequence at a time in float32."""
    rows = [
        F.cross_entropy(logits_TV[:-1].float(), ids_T[1:], reduction="none")
        for logits_TV, ids_T in zip(logits_BTV, batch.ids_BT, strict=True)
    ]
    return torch.stack(rows).to(widest(logits_BTV.device)) * predicted(batch)
