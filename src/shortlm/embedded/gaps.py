"""Sentences with a gap that the world or the story so far fills: the teachable part of the corpus.

The corpus writes a gap with its answer; the multiple-choice tasks show it with wrong answers beside the right one.
Reads the tables of `world`, draws through a `Chooser`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from shortlm.embedded.choices import Chooser
from shortlm.embedded.world import (
    ADJECTIVES,
    DAYS,
    FOODS,
    NUMBERS,
    PEOPLE,
    PETS,
    PLACES,
    SEASONS,
    THINGS,
    VERBS,
    Person,
)


@dataclass(frozen=True)
class Gap:
    """`prompt` without trailing space, the `answer` that follows it, and answers that would be `wrong`."""

    prompt: str
    answer: str
    wrong: tuple[str, ...]

    @property
    def text(self) -> str:
        """The prompt with its gap filled, no full stop."""
        return f"{self.prompt} {self.answer}"


def ask(question: str, answer: str, options: Sequence[str]) -> Gap:
    """The one question form of the corpus; every option but the answer is wrong."""
    return Gap(f"{question}?", answer, tuple(o for o in options if o != answer))


_HOMES = tuple(f"by the {person.home}" for person in PEOPLE)
_TRADES = tuple(f"the {person.trade}" for person in PEOPLE)
_NAMES = tuple(person.name for person in PEOPLE)
_PETS = tuple(f"a {pet}" for pet in PETS)


def _about(person: Person, subject: str) -> tuple[Gap, ...]:
    return (
        ask(f"Where does {subject} live", f"by the {person.home}", _HOMES),
        ask(f"What does {subject} keep", f"a {person.pet}", _PETS),
        ask(f"What does {subject} like", person.food, FOODS),
    )


def fact(ch: Chooser) -> Gap:
    """A question about one villager, by name, by trade or by home."""
    person = ch.pick(PEOPLE)
    return ch.pick(
        (
            *_about(person, person.name),
            *_about(person, f"the {person.trade}"),
            ask(f"What is the trade of {person.name}", f"the {person.trade}", _TRADES),
            ask(f"Who is the {person.trade}", person.name, _NAMES),
            ask(f"Who lives by the {person.home}", person.name, _NAMES),
        )
    )


def number(value: int, prompt: str) -> Gap:
    """A gap for the number `value`; the wrong answers are its neighbours, which are the hard ones."""
    near = [n for n in range(max(0, value - 3), min(20, value + 3) + 1) if n != value]
    return Gap(prompt, NUMBERS[value], tuple(NUMBERS[n] for n in near))


def addition(ch: Chooser) -> Gap:
    """How many are a and b, with a from 0 to 10 and b from 1 to 10."""
    a, b = ch.pick(range(11)), ch.pick(range(1, 11))
    return number(a + b, f"How many are {NUMBERS[a]} and {NUMBERS[b]}?")


def neighbour(ch: Chooser) -> Gap:
    """What comes before or after, in the days and seasons (which go round) and in the numbers."""
    unit, row = ch.pick((("day", DAYS), ("season", SEASONS), ("number", NUMBERS)))
    words = {"after": 1, "before": -1} | ({"two after": 2} if unit == "day" else {})
    word = ch.pick(tuple(words))
    step = words[word]
    starts = range(len(row)) if unit != "number" else range(max(0, -step), len(row) - max(0, step))
    start = ch.pick(starts)
    return ask(f"Which {unit} comes {word} {row[start]}", row[(start + step) % len(row)], row)


def place_in_line(ch: Chooser, names: Sequence[str]) -> Gap:
    """Who stands where, in a line just told."""
    asked = [("Who is the first", names[0]), ("Who is the last", names[-1])]
    asked += [(f"Who stands after {a}", b) for a, b in pairwise(names)]
    asked += [(f"Who stands before {b}", a) for a, b in pairwise(names)]
    return ask(*ch.pick(asked), names)


def holder(ch: Chooser, holds: dict[str, str], names: Sequence[str]) -> Gap:
    """Who has one of the objects now; `holds` maps object to name."""
    thing = ch.pick(tuple(holds))
    return ask(f"Who has the {thing}", holds[thing], names)


def verb(ch: Chooser) -> Gap:
    """A noun, another noun standing nearer the verb, and the verb that must agree with the first."""
    subject, near = ch.ordered(THINGS, 2)
    many, many_near = ch.pick((0, 1)), ch.pick((0, 1))
    forms = ch.pick(VERBS)
    prompt = f"The {subject[many]} {ch.pick(PLACES)} the {near[many_near]}"
    return Gap(prompt, forms[many], (forms[1 - many],))


def owner(ch: Chooser) -> Gap:
    """One or two people doing something to what is theirs: the verb shows the count, the gap is the possessive."""
    singular, plural = ch.pick((("paints", "paint"), ("cleans", "clean"), ("mends", "mend"), ("sells", "sell")))
    if ch.pick((True, False)):
        person = ch.pick(PEOPLE)
        return Gap(f"{person.name} {singular}", person.possessive, ("their", "his" if person.she else "her"))
    first, second = ch.ordered(_NAMES, 2)
    return Gap(f"{first} and {second} {plural}", "their", ("his", "her"))


def adjectives(ch: Chooser) -> list[str]:
    """Two different adjectives."""
    return ch.ordered(ADJECTIVES, 2)
