"""Modules whose forwards are replaced for a while."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from torch import nn

from shortlm.errors import ModelError


@contextmanager
def replaced_forwards(
    blocks: list[nn.Module], make: Callable[[int, Callable[..., Any]], Callable[..., Any]]
) -> Generator[None, None, None]:
    """Each block's instance-level forward replaced by make(i, original); restored even on error."""
    had = [vars(block).get("forward") for block in blocks]
    try:
        for i, block in enumerate(blocks):
            block.forward = make(i, block.forward)  # type: ignore[method-assign]
        yield
    finally:
        for block, forward in zip(blocks, had, strict=True):
            if forward is None:
                vars(block).pop("forward", None)
            else:
                block.forward = forward  # type: ignore[method-assign]


@contextmanager
def bypassed(blocks: list[nn.Module], dropped: list[int]) -> Generator[None, None, None]:
    """The model with some blocks' outputs replaced by their inputs: slow and plain, the reference for cuts."""

    def hand_on(block: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if not args:
            raise ModelError(f"{type(block).__name__}: is given no hidden state alone (reversible?); it can't be cut")
        return (args[0], *output[1:]) if isinstance(output, (tuple, list)) else args[0]

    hooks = [blocks[i].register_forward_hook(hand_on) for i in dropped]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
