"""The eight kinds of paragraph of the corpus, 10 to 40 words each.

Every choice shows in the text and no two series of choices write the same text, so the text's probability is that of
its choices. Keep it so when adding a kind: `tests/test_embedded.py` counts.
"""

from __future__ import annotations

from shortlm.embedded import gaps
from shortlm.embedded.choices import Chooser
from shortlm.embedded.world import COUNTED, DAYS, NUMBERS, OBJECTS, PEOPLE, SEASONS, THINGS, Person, noun

_SHE_OF = {person.name: person.pronoun for person in PEOPLE}


def portrait(ch: Chooser) -> str:
    """Three facts about a villager, who is called by name or by trade."""
    person = ch.pick(PEOPLE)
    by_name = ch.pick((True, False))
    facts = ch.ordered(_phrases(person, by_name), 3)
    first = person.name if by_name else f"The {person.trade}"
    again = person.pronoun.capitalize()
    return f"{first} {facts[0]}. {again} {facts[1]}. {again} {facts[2]}."


def _phrases(person: Person, by_name: bool) -> tuple[str, ...]:
    identity = f"is the {person.trade}" if by_name else f"is called {person.name}"
    return identity, f"lives by the {person.home}", f"keeps a {person.pet}", f"likes {person.food}"


def quiz(ch: Chooser) -> str:
    """Three questions about villagers."""
    return " ".join(f"{gaps.fact(ch).text}." for _ in range(3))


def story(ch: Chooser) -> str:
    """Somebody gains and loses countable things; after each event the new count is told."""
    person, pair = ch.pick(PEOPLE), ch.pick(COUNTED)
    count = ch.pick(range(1, 10))
    told = [f"{person.name} has {NUMBERS[count]} {noun(pair, count)}."]
    for _ in range(ch.pick((1, 2, 3))):
        event, count = change(ch, person, count)
        told.append(f"{event} {NUMBERS[count]} {noun(pair, count)}.")
    return " ".join(told)


def change(ch: Chooser, person: Person, count: int) -> tuple[str, int]:
    """An event up to the new count, and that count (0 to 20)."""
    signs = [sign for sign, possible in ((1, count < 20), (-1, count > 0)) if possible]
    sign = ch.pick(signs)
    by = ch.pick(range(1, 1 + min(5, 20 - count if sign > 0 else count)))
    verb = ch.pick(("finds", "buys") if sign > 0 else ("loses", "sells"))
    more = " more" if sign > 0 else ""
    she = person.pronoun
    return f"{she.capitalize()} {verb} {NUMBERS[by]}{more}. Now {she} has", count + sign * by


def sums(ch: Chooser) -> str:
    """Two additions."""
    return f"{gaps.addition(ch).text}. {gaps.addition(ch).text}."


def calendar(ch: Chooser) -> str:
    """A run of days or seasons, then a question of order."""
    unit, row, longest = ch.pick((("days", DAYS, 5), ("seasons", SEASONS, 4)))
    start, length = ch.pick(range(len(row))), ch.pick(range(2, longest + 1))
    run = [row[(start + i) % len(row)] for i in range(length)]
    return f"The {unit} go {', '.join(run[:-1])} and {run[-1]}. {gaps.neighbour(ch).text}."


def line(ch: Chooser) -> str:
    """People standing in a line, then two questions about it."""
    names = line_names(ch)
    return f"{line_told(names)} {gaps.place_in_line(ch, names).text}. {gaps.place_in_line(ch, names).text}."


def line_names(ch: Chooser) -> list[str]:
    """Three to five names, first in line first."""
    return ch.ordered([person.name for person in PEOPLE], ch.pick((3, 4, 5)))


def line_told(names: list[str]) -> str:
    """The sentence that tells the line."""
    return f"In the line stand {', '.join(names[:-1])} and {names[-1]}."


def agreement(ch: Chooser) -> str:
    """Number agreement across a distractor, then possessive and pronoun agreement."""
    gap = gaps.verb(ch)
    adjective, other = gaps.adjectives(ch)
    many = gap.answer in ("are", "were", "look", "seem")
    also = "They are" if many else "It is"
    return f"{gap.text} {adjective}. {also} also {other}. {_work(ch)}"


def _work(ch: Chooser) -> str:
    gap = gaps.owner(ch)
    thing = ch.pick(THINGS)[0]
    who = gap.prompt.split()[0]
    rests = "they rest" if gap.answer == "their" else f"{_SHE_OF[who]} rests"
    return f"{gap.text} {thing} and then {rests}."


def possession(ch: Chooser) -> str:
    """Two objects change hands among three people; then who has one of them."""
    told, holds, names = exchange(ch)
    return f"{told} {gaps.holder(ch, holds, names).text}."


def exchange(ch: Chooser) -> tuple[str, dict[str, str], list[str]]:
    """The story, who holds each object at its end, and the three names."""
    names = ch.ordered([person.name for person in PEOPLE], 3)
    objects = ch.ordered(OBJECTS, 2)
    holds = dict(zip(objects, names, strict=False))
    told = [f"{name} has the {thing}." for thing, name in holds.items()]
    told.append(f"{names[2]} has nothing.")
    for _ in range(ch.pick((1, 2, 3))):
        told.append(_hand_over(ch, holds, names))
    return " ".join(told), holds, names


def _hand_over(ch: Chooser, holds: dict[str, str], names: list[str]) -> str:
    thing = ch.pick(tuple(holds))
    giver = holds[thing]
    taker = ch.pick([name for name in names if name != giver])
    holds[thing] = taker
    if ch.pick((True, False)):
        return f"{giver} gives the {thing} to {taker}."
    return f"{taker} takes the {thing} from {giver}."
