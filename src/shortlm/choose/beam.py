"""Beam search: greedy with the `width` best sets kept in every round; equal sets are one, however they came about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from shortlm.choose.greedy import WHOLE
from shortlm.choose.method import Call, Given, Method
from shortlm.choose.question import Question
from shortlm.choose.trials import Trials
from shortlm.recipe.specs import Options
from shortlm.units import Mask


def beam(trials: Trials, given: Given) -> Mask:
    """The best of the sets that meet the budget; sets of unequal cost compete by the loss increase per cost."""
    question, sets, done = trials.question, [WHOLE], list[Mask]()
    while grown := _grown(question, sets):
        trials.ask(grown, keep=sets)
        sets = sorted(grown, key=lambda mask: (_rate(trials, mask), sorted(mask)))[: given["width"]]
        trials.found(min(sets, key=trials.loss))
        done += [mask for mask in sets if question.met(mask)]
    best = min(done, key=lambda mask: (trials.loss(mask), sorted(mask)))
    trials.found(best)
    return best


def _grown(question: Question, sets: Sequence[Mask]) -> list[Mask]:
    grown = (question.grown(removed, unit) for removed in sets for unit in question.candidates(removed))
    return list(dict.fromkeys(grown))


def _rate(trials: Trials, mask: Mask) -> float:
    return (trials.loss(mask) - trials.loss(WHOLE)) / trials.question.cost(mask)


def _calls(question: Question, given: Given) -> Iterator[Call]:
    """As if the sets were always those in the middle."""
    sets = [WHOLE]
    while grown := _grown(question, sets):
        yield Call(grown, sets)
        middle = max(0, (len(grown) - given["width"]) // 2)
        sets = grown[middle : middle + given["width"]]


BEAM = Method(
    beam, "greedy with several sets kept in every round",
    Options({"width": 4}, limits={"width": (1, 64)}), _calls, kept=lambda given: given["width"],
)  # fmt: skip
