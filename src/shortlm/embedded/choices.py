"""Random choices that keep their own account: every draw adds its surprisal, so a text knows its exact probability."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Chooser:
    """Draws from a seeded generator and sums -log p of what it drew.

    Only `random.Random.random()` is used: its sequence is the same in every Python version, that of `choice` and
    `shuffle` is not.
    """

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.nats = 0.0

    def index(self, weights: Sequence[float]) -> int:
        """Position drawn in proportion to `weights`. The one place where chance enters."""
        point = self.rng.random() * sum(weights)
        for position, weight in enumerate(weights):
            point -= weight
            if point < 0:
                return position
        return len(weights) - 1

    def pick(self, options: Sequence[T], weights: Sequence[float] | None = None) -> T:
        """One of `options`, equally likely unless `weights` says otherwise."""
        weights = weights or (1,) * len(options)
        position = self.index(weights)
        self.nats -= math.log(weights[position] / sum(weights))
        return options[position]

    def ordered(self, options: Sequence[T], count: int) -> list[T]:
        """`count` different options, their order counting as part of the choice."""
        left = list(options)
        return [left.pop(left.index(self.pick(left))) for _ in range(count)]
