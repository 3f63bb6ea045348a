"""The losses: cross-entropy, and the divergence from the teacher's distribution and hidden states.

The logits are computed only where there is a label: the head's input is narrowed to these positions before
it reaches the head, whatever the architecture; what follows the head (scales, soft-caps) works on each logit alone.

Shapes: B rows, T tokens, N positions with a label, D hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F

from shortlm.errors import ModelError
from shortlm.model import find_anatomy


class Narrowed:
    """A model whose logits come only at chosen positions, as logits_NV."""

    def __init__(self, model: Any):
        self._labelled_N: torch.Tensor | None = None
        self._handle = model.get_output_embeddings().register_forward_pre_hook(self._narrow)

    def __call__(self, model: Any, batch: dict[str, Any]) -> torch.Tensor:
        """The logits of `model` (the one narrowed, or what wraps it) at the positions with a label, float32."""
        self._labelled_N = batch["labelled"]
        try:
            given = {name: batch[name] for name in ("input_ids", "position_ids") if name in batch}
            logits_1NV = model(**given, use_cache=False).logits
        finally:
            self._labelled_N = None
        return logits_1NV[0].float()

    def _narrow(self, head: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        if self._labelled_N is None:
            return None
        return (inputs[0].flatten(0, 1)[self._labelled_N][None], *inputs[1:])

    def check(self, model: Any) -> None:
        """Raise ModelError if narrowed logits are not those of the plain model."""
        ids_BT = torch.arange(16).reshape(2, 8).to(model.get_input_embeddings().weight.device)
        labelled_N = torch.tensor([1, 4, 9, 14], device=ids_BT.device)
        with torch.no_grad(), evaluating(model):
            plain_NV = model(input_ids=ids_BT, use_cache=False).logits.flatten(0, 1)[labelled_N].float()
            narrowed_NV = self(model, {"input_ids": ids_BT, "labelled": labelled_N})
        close = narrowed_NV.shape == plain_NV.shape and torch.allclose(narrowed_NV, plain_NV, rtol=0.02, atol=0.02)
        if not close:
            raise ModelError(f"{type(model).__name__}: its logits depend on other positions; it can't be healed yet")


def check_apart(model: Any) -> None:
    """Raise ModelError if documents in one row see each other although their positions begin anew."""
    device = model.get_input_embeddings().weight.device
    ids_BT = torch.arange(3, 15, device=device)[None]
    positions_BT = torch.cat([torch.arange(7), torch.arange(5)]).to(device)[None]
    with torch.no_grad(), evaluating(model):
        packed_TV = model(input_ids=ids_BT, position_ids=positions_BT, use_cache=False).logits[0, 7:].float()
        alone_TV = model(input_ids=ids_BT[:, 7:], use_cache=False).logits[0].float()
    if not torch.allclose(packed_TV, alone_TV, rtol=0.02, atol=0.02 * float(alone_TV.abs().max())):
        raise ModelError(f"{type(model).__name__}: can't keep documents of a row apart; use --attend window")


class Loss:
    """The sum over the targets of a micro-batch; nats for cross-entropy."""

    def __init__(self, model: Any):
        self.narrowed = Narrowed(model)
        self.narrowed.check(model)

    @classmethod
    def unchecked(cls, model: Any) -> Loss:
        """For a model without values."""
        loss = cls.__new__(cls)
        loss.narrowed = Narrowed(model)
        return loss

    def __call__(self, model: Any, batch: dict[str, Any]) -> torch.Tensor:
        """What is trained on."""
        return self.nats(model, batch)

    def nats(self, model: Any, batch: dict[str, Any]) -> torch.Tensor:
        """Cross-entropy, which validation measures whatever is trained on."""
        return F.cross_entropy(self.narrowed(model, batch), batch["targets"], reduction="sum")


class Distillation(Loss):
    """share * KL(teacher || student) + (1 - share) * cross-entropy + hidden * difference of hidden states.

    Logits are divided by the temperature and the divergence multiplied by its square (Hinton et al., 1503.02531).
    The hidden state after each block of the student is compared with that after the same block of the teacher
    (`blocks`: its index there), as mean squared difference relative to the teacher's mean square.
    """

    def __init__(self, model: Any, teacher: Any, blocks: list[int], share: float, temperature: float, hidden: float):
        super().__init__(model)
        self._teacher, self._narrowed_teacher = teacher, Narrowed(teacher)
        self._share, self._temperature, self._hidden = share, temperature, hidden
        taught = find_anatomy(teacher).blocks
        self._pairs = [(own, taught[i]) for own, i in zip(find_anatomy(model).blocks, blocks, strict=True)]

    def __call__(self, model: Any, batch: dict[str, Any]) -> torch.Tensor:
        """The sum over the targets."""
        pairs = self._pairs if self._hidden else []
        with hidden_states_after([own for own, _ in pairs]) as student:
            logits_NV = self.narrowed(model, batch)
        with torch.no_grad(), hidden_states_after([taught for _, taught in pairs]) as teacher:
            teacher_NV = self._narrowed_teacher(self._teacher, batch)
        loss = self._share * self._divergence(logits_NV, teacher_NV)
        if self._share < 1:
            loss = loss + (1 - self._share) * F.cross_entropy(logits_NV, batch["targets"], reduction="sum")
        if self._hidden:
            loss = loss + self._hidden * _differences(student, teacher, batch["labelled"])
        return loss

    def _divergence(self, logits_NV: torch.Tensor, teacher_NV: torch.Tensor) -> torch.Tensor:
        student, teacher = (F.log_softmax(x / self._temperature, -1) for x in (logits_NV, teacher_NV))
        return F.kl_div(student, teacher, reduction="sum", log_target=True) * self._temperature**2


def _differences(student: list[torch.Tensor], teacher: list[torch.Tensor], labelled_N: torch.Tensor) -> torch.Tensor:
    """Mean over blocks of the relative squared difference, times the number of targets."""
    total = torch.zeros((), device=labelled_N.device)
    for pair in zip(student, teacher, strict=True):
        student_ND, teacher_ND = (h_BTD.flatten(0, 1)[labelled_N].float() for h_BTD in pair)
        total = total + F.mse_loss(student_ND, teacher_ND) / teacher_ND.square().mean()
    return total / len(student) * len(labelled_N)


@contextmanager
def hidden_states_after(blocks: list[Any]) -> Generator[list[torch.Tensor], None, None]:
    """Collects the hidden state after each block while the model runs."""
    states: list[torch.Tensor] = []

    def keep(module: Any, inputs: Any, output: Any) -> None:
        states.append(output[0] if isinstance(output, (tuple, list)) else output)

    handles = [block.register_forward_hook(keep) for block in blocks]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def evaluating(model: Any) -> Generator[None, None, None]:
    """The model without dropout for a while."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
