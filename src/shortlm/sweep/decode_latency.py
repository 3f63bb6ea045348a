"""How long a decoding step takes, and how much of it each unit: what a step without some units can be expected to take.

transformers' own `generate` writes some tokens with the KV cache, greedily, and is timed from outside: whole steps,
blocks, sublayers. Each is a run of its own, so that the hooks of one don't slow another, and the three take turns, so
that the machine's drift falls on all alike. The first round warms up; of the others the medians over all steps count.

Shapes: B = 1 sequence, T tokens of the prompt, N steps, K things that are timed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from shortlm.clock import Moments, seconds, timed, wait
from shortlm.errors import ModelError
from shortlm.model import OpenModel, quiet, sampling_options
from shortlm.units import ATTENTION, BLOCK, FFN, Unit

Thing = list[nn.Module]  # modules whose times add up


@dataclass(frozen=True)
class DecodeLatency:
    """Seconds of a decoding step of one sequence. The lists have a value per block; 0 for a sublayer that it lacks."""

    attention: list[float]
    ffn: list[float]
    blocks: list[float]  # with their norms and sums
    rest: float  # embeddings, final norm, head, and what `generate` does around the model
    prompt_tokens: int
    steps: int  # that the medians are of

    @property
    def total(self) -> float:
        """Of the whole model."""
        return sum(self.blocks) + self.rest

    def of(self, unit: Unit) -> float:
        """Of a unit."""
        return {BLOCK: self.blocks, ATTENTION: self.attention, FFN: self.ffn}[unit.part][unit.block]

    def without(self, units: Iterable[Unit]) -> float:
        """What a step is expected to take without these units; a block that loses both sublayers is gone as a whole."""
        parts: dict[int, set[str]] = {}
        for unit in units:
            parts.setdefault(unit.block, set()).add(unit.part)
        gone = [Unit(i, min(of_block) if of_block in ({ATTENTION}, {FFN}) else BLOCK) for i, of_block in parts.items()]
        return self.total - sum(map(self.of, gone))


def decode_latencies(opened: OpenModel, prompt_tokens: int = 64, steps: int = 16, rounds: int = 4) -> DecodeLatency:
    """Measured where the model is. The prompt is cut short where the model's context holds no more beside the steps.

    Raises ModelError if the model can't generate, or if its blocks are on disk.
    """
    _refuse_unable(opened)
    anatomy = opened.anatomy
    blocks, sublayers = [[block] for block in anatomy.blocks], _sublayers(opened)
    kinds: list[Sequence[Thing]] = [[], blocks, sublayers]
    ids_BT, runs = _prompt(opened, prompt_tokens, steps), [[], [], []]
    for _ in range(rounds + 1):
        for kind, run in zip(kinds, runs, strict=True):
            run.append(_run(opened, ids_BT, steps, kind))
    whole, of_blocks, of_sublayers = (torch.cat(run[1:]).quantile(0.5, dim=0).tolist() for run in runs)
    of_sublayers = [min(pair) for pair in zip(of_sublayers, of_blocks * 2, strict=True)]  # noise must not tell more
    n_blocks = len(blocks)
    return DecodeLatency(
        attention=of_sublayers[:n_blocks], ffn=of_sublayers[n_blocks:], blocks=of_blocks,
        rest=max(whole[0] - sum(of_blocks), 0.0), prompt_tokens=ids_BT.shape[1], steps=rounds * steps,
    )  # fmt: skip


def _refuse_unable(opened: OpenModel) -> None:
    if opened.disk:
        raise ModelError(f"{opened.facts.name}: blocks on disk can't write text to be timed; use --stream off")
    if not opened.model.can_generate():
        raise ModelError(f"{opened.facts.name}: can't generate text, so its decoding can't be timed")


def _sublayers(opened: OpenModel) -> list[Thing]:
    """The modules of each block's attention, then those of each block's FFN."""
    anatomy = opened.anatomy
    return [
        [block.get_submodule(name) for name in names]
        for of_part in (anatomy.attention, anatomy.ffn)
        for block, names in zip(anatomy.blocks, of_part, strict=True)
    ]


def _prompt(opened: OpenModel, tokens: int, steps: int) -> torch.Tensor:
    """Made-up ids; what is written doesn't matter to the time."""
    room = tokens if opened.context is None else max(1, min(tokens, opened.context - steps - 1))
    vocabulary = opened.model.get_input_embeddings().num_embeddings
    ids_BT = torch.randint(vocabulary, (1, room), generator=torch.Generator().manual_seed(0))
    return ids_BT.to(opened.device)


def _run(opened: OpenModel, ids_BT: torch.Tensor, steps: int, things: Sequence[Thing]) -> torch.Tensor:
    """Seconds of every step, N x 1; or those that each of some things takes of it, N x K."""
    ends = Moments(opened.device)
    with timed([module for thing in things for module in thing], opened.device) as found, torch.no_grad(), quiet():
        _generate(opened.model, ids_BT, steps + 1, ends)
    wait(opened.device)
    if not things:
        return torch.tensor(ends.steps(), dtype=torch.float64)[:, None]
    modules = iter(found)
    of_things = [[next(modules) for _ in thing] for thing in things]
    spent = [[sum(seconds(*spans[n]) for spans in thing) for thing in of_things] for n in range(1, steps + 1)]
    return torch.tensor(spent, dtype=torch.float64)


def _generate(model: Any, ids_BT: torch.Tensor, tokens: int, moments: Moments) -> None:
    """The first call of every module is for the prompt, the others for a step each."""
    model.generate(
        input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT), min_new_tokens=tokens, max_new_tokens=tokens,
        pad_token_id=0, disable_compile=True, stopping_criteria=[moments], **sampling_options(model, 0, 0, 1),
    )  # fmt: skip
