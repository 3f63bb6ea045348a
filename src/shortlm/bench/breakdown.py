"""Where the time of a decoding step goes: blocks, lm_head (with the final norm), and the rest.

Only the blocks' time falls when blocks are dropped, so this tells how much faster a shorter model can get at best.
"""

from __future__ import annotations

import statistics
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from shortlm.artifacts import Breakdown
from shortlm.bench.cases import Case
from shortlm.bench.runners import Runner
from shortlm.clock import Moments, mark, seconds, timed, wait

STEPS, ROUNDS = 16, 12


def breakdowns(runners: list[Runner], case: Case) -> list[Breakdown]:
    """One for each runner; they take turns."""
    shorter = Case(case.batch, case.prompt_tokens, min(STEPS, case.output_tokens), case.workload, case.text)
    steps: dict[str, list[tuple[float, float, float]]] = {runner.role: [] for runner in runners}
    for number in range(ROUNDS + 1):
        for runner in runners if number % 2 else runners[::-1]:
            found = _steps(runner, shorter)
            steps[runner.role] += found if number else []  # the first round warms up
    return [_median(runner.role, shorter, steps[runner.role]) for runner in runners]


def _median(role: str, case: Case, steps: list[tuple[float, float, float]]) -> Breakdown:
    blocks, head, rest = (statistics.median(column) for column in zip(*steps, strict=True))
    return Breakdown(
        role=role, batch=case.batch, prompt_tokens=case.prompt_tokens, steps=len(steps), blocks=blocks, head=head,
        rest=rest,
    )  # fmt: skip


def _steps(runner: Runner, case: Case) -> list[tuple[float, float, float]]:
    """(blocks, head, rest) of every step after the first token, seconds."""
    anatomy, device = runner.opened.anatomy, runner.device
    heads: list[tuple[Any, Any]] = []
    ends = Moments(device)
    first = anatomy.norm if anatomy.norm is not None else anatomy.head
    with timed(anatomy.blocks, device) as inside, _between(first, anatomy.head, device, heads):
        runner.run(runner.prompt(case), case, moments=ends)
    wait(device)
    found = []
    for i, step in enumerate(ends.steps(), start=1):
        blocks, head = sum(seconds(*spans[i]) for spans in inside), seconds(*heads[i])
        found.append((blocks, head, max(step - blocks - head, 0.0)))
    return found


@contextmanager
def _between(first: nn.Module, last: nn.Module, device: torch.device, found: list) -> Generator[None, None, None]:
    """From the beginning of one module's call to the end of another's."""
    starts: list[Any] = []
    hooks = [first.register_forward_pre_hook(lambda *_: starts.append(mark(device)))]
    hooks.append(last.register_forward_hook(lambda *_: found.append((starts.pop(), mark(device)))))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
