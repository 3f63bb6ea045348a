"""The made-up village that the embedded model is told about: every table the corpus generator draws from.

Names, facts and the calendar are invented for this file. Words are short and few, so that the whole vocabulary
fits a small tokenizer with one token per word.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Person:
    """A villager. Home and trade are unique to the person, pet and food are shared by two or three."""

    name: str
    she: bool
    home: str
    trade: str
    pet: str
    food: str

    @property
    def pronoun(self) -> str:
        """Subject pronoun, lower case."""
        return "she" if self.she else "he"

    @property
    def possessive(self) -> str:
        """Possessive pronoun, lower case."""
        return "her" if self.she else "his"


PEOPLE = (
    Person("Mira", True, "mill", "baker", "goat", "honey"),
    Person("Tobin", False, "bridge", "weaver", "cat", "soup"),
    Person("Lena", True, "tower", "smith", "dog", "plums"),
    Person("Oskar", False, "well", "potter", "crow", "bread"),
    Person("Juna", True, "harbor", "sailor", "cat", "cheese"),
    Person("Pell", False, "forest", "hunter", "dog", "honey"),
    Person("Rosa", True, "chapel", "teacher", "hen", "soup"),
    Person("Finn", False, "orchard", "farmer", "goat", "cheese"),
    Person("Wanda", True, "market", "tailor", "crow", "plums"),
    Person("Hugo", False, "quarry", "mason", "frog", "bread"),
    Person("Ivy", True, "meadow", "healer", "frog", "honey"),
    Person("Bram", False, "gate", "guard", "hen", "soup"),
)

PETS = tuple(sorted({person.pet for person in PEOPLE}))
FOODS = tuple(sorted({person.food for person in PEOPLE}))

DAYS = ("Loday", "Miday", "Nuday", "Paday", "Riday", "Suday", "Voday")
SEASONS = ("spring", "summer", "autumn", "winter")

NUMBERS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
]

COUNTED = (
    ("apple", "apples"),
    ("pear", "pears"),
    ("coin", "coins"),
    ("egg", "eggs"),
    ("nut", "nuts"),
    ("shell", "shells"),
    ("button", "buttons"),
    ("candle", "candles"),
)

THINGS = (
    ("basket", "baskets"),
    ("cart", "carts"),
    ("boat", "boats"),
    ("chair", "chairs"),
    ("wall", "walls"),
    ("door", "doors"),
    ("tree", "trees"),
    ("house", "houses"),
)

PLACES = ("near", "behind", "under", "beside")
ADJECTIVES = ("old", "new", "red", "blue", "small", "tall", "clean", "wet")
VERBS = (("is", "are"), ("was", "were"), ("looks", "look"), ("seems", "seem"))

OBJECTS = ("lamp", "rope", "key", "drum", "book", "ring", "kite", "bell")


def noun(pair: tuple[str, str], count: int) -> str:
    """Singular for exactly one, plural otherwise (zero apples)."""
    return pair[0] if count == 1 else pair[1]
