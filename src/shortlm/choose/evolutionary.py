"""Evolutionary search (EvoPress, 2410.14649): sets mutate by swaps, the fittest survive, tested on more and more text.

A mutation makes min(U{1..3}, U{1..3}) swaps of a dropped unit for a kept one of the same kind. Offspring is thinned
out in stages, each on a fresh sample of the text; the parents compete in the last one. The preset `evopress` has the
settings of the published script: population 1, 64 random starts on 2048 tokens, 32 offspring, 2 survivors on 2048
tokens and 1 on 32768, k(n-k)/1.5 generations (`--objective kl` is its fitness).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from math import ceil

from shortlm.choose.method import Call, Given, Method
from shortlm.choose.one_shot import first_of
from shortlm.choose.question import Question
from shortlm.choose.trials import Trials
from shortlm.recipe.specs import Options
from shortlm.units import Mask

SWAPS = 3
PATIENCE = 200  # draws of a mutation before the set is left as it is


def evolutionary(trials: Trials, given: Given) -> Mask:
    """The fittest set of the last generation."""
    question, rng = trials.question, random.Random(given["seed"])
    starts = distinct(lambda: random_set(question, rng), given["starts"])
    parent = _fittest(trials, starts, 1, given["few"], rng)[0]
    for _ in range(generations(question, given)):
        offspring = distinct(lambda parent=parent: mutated(question, parent, rng), given["offspring"])
        some = _fittest(trials, offspring, given["survivors"], given["few"], rng)
        parent = _fittest(trials, [parent, *some], 1, given["many"], rng)[0]
        trials.found(parent)
    trials.losses([parent])
    return parent


def generations(question: Question, given: Given) -> int:
    """Those given, or as published: k(n-k)/1.5 of k units to go of n."""
    if given["generations"]:
        return given["generations"]
    removed = len(_typical(question))
    return max(1, ceil(removed * (len(question.free) - removed) / 1.5))


def _fittest(trials: Trials, sets: Sequence[Mask], count: int, tokens: int, rng: random.Random) -> list[Mask]:
    """The sets with the lowest loss on a fresh sample of about so many tokens (0: all of the text)."""
    if len(sets) <= count:
        return list(sets)
    parts = len(trials.evaluator.parts)
    some = max(1, round(parts * min(1.0, tokens / trials.evaluator.tokens))) if tokens else parts
    sample = sorted(rng.sample(range(parts), some))
    losses = trials.losses(sets) if some == parts else trials.losses_on(sets, sample)
    return [sets[k] for k in sorted(range(len(sets)), key=lambda k: (losses[k], sorted(sets[k])))[:count]]


def random_set(question: Question, rng: random.Random) -> Mask:
    """Units in random order until the budget is met."""
    order = list(question.free)
    rng.shuffle(order)
    return first_of(question, order)


def mutated(question: Question, removed: Mask, rng: random.Random) -> Mask:
    """A neighbour of this set that meets the budget too."""
    for _ in range(PATIENCE):
        found = removed
        for _ in range(min(rng.randint(1, SWAPS), rng.randint(1, SWAPS))):
            found = _swapped(question, found, rng)
        if found != removed and question.met(found):
            return found
    return removed


def _swapped(question: Question, removed: Mask, rng: random.Random) -> Mask:
    back = rng.choice(question.leaving(removed))
    smaller = question.shrunk(removed, back)
    others = [unit for unit in question.candidates(smaller) if unit.part == back.part and unit != back]
    return question.grown(smaller, rng.choice(others)) if others else removed


def distinct(draw: Callable[[], Mask], count: int) -> list[Mask]:
    """Different sets, at most so many; fewer if no more are drawn."""
    found: dict[Mask, None] = {}
    for _ in range(10 * count):
        found.setdefault(draw(), None)
        if len(found) == count:
            break
    return list(found)


def _typical(question: Question) -> Mask:
    return first_of(question, sorted(question.free, key=lambda u: abs(2 * u.block - question.model.n_blocks)))


def _calls(question: Question, given: Given) -> Iterator[Call]:
    rng = random.Random(0)
    yield Call(distinct(lambda: random_set(question, rng), given["starts"]))
    parent = _typical(question)
    children = distinct(lambda: mutated(question, parent, rng), given["offspring"])
    yield Call(children[: given["survivors"] + 1] if given["few"] else children, times=generations(question, given))


EVOLUTIONARY = Method(
    evolutionary, "random swaps, the fittest set survives",
    Options(
        {"starts": 32, "offspring": 16, "survivors": 4, "few": 0, "many": 0, "generations": 30, "seed": 0},
        {"evopress": {"starts": 64, "offspring": 32, "survivors": 2, "few": 2048, "many": 32768, "generations": 0}},
        limits={
            "starts": (1, 10_000), "offspring": (1, 10_000), "survivors": (1, 10_000), "few": (0, 2**40),
            "many": (0, 2**40), "generations": (0, 1_000_000), "seed": (0, 2**62),
        },
    ),
    _calls, by_parts=lambda given: bool(given["few"] or given["many"]),
)  # fmt: skip
