"""Names, places and words that the generators fill into their templates."""

from __future__ import annotations

import random
from pathlib import Path


def parse(text: str) -> dict[str, tuple[str, ...]]:
    """The lists of a word file: a line with a colon names one, the lines up to a blank line are its items."""
    lists: dict[str, tuple[str, ...]] = {}
    for block in text.strip().split("\n\n"):
        name, _, items = block.partition(":\n")
        if not block.startswith("#"):
            lists[name] = tuple(item.strip() for item in items.replace("\n", " ").split("|"))
    return lists


LISTS = parse((Path(__file__).parent / "words.txt").read_text(encoding="utf-8"))
PEOPLE = LISTS["people"]
CITIES = LISTS["cities"]
COLOURS = LISTS["colours"]
ANIMALS = LISTS["animals"]
FRUITS = LISTS["fruits"]
JOBS = LISTS["jobs"]
OBJECTS = LISTS["objects"]
FOODS = LISTS["foods"]
TOPICS = LISTS["topics"]
COUNTRIES = LISTS["countries"]
MONTHS = LISTS["months"]
DAYS = LISTS["days"]
LANGUAGES = LISTS["languages"]
ROOMS = LISTS["rooms"]

_ONSETS = (*"bcdfghjklmnprstvwz", "br", "cl", "dr", "fl", "gr", "pl", "st", "tr", "sh", "ch", "th")
_VOWELS = (*"aeiou", "ai", "ea", "oo")
_CODAS = ("", "n", "r", "s", "l", "m", "t", "x", "nd", "rk")


def invented_word(rng: random.Random) -> str:
    """A pronounceable word that no list holds: what can only be copied, not remembered."""
    syllables = [rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(rng.randint(1, 3))]
    return "".join(syllables)


def any_word(rng: random.Random) -> str:
    """A word from the lists or, as often, an invented one."""
    if rng.random() < 0.5:
        return invented_word(rng)
    return rng.choice(rng.choice((COLOURS, ANIMALS, FRUITS, OBJECTS, FOODS, JOBS)))


def any_name(rng: random.Random) -> str:
    """A person's name, invented in one case out of five."""
    return invented_word(rng).capitalize() if rng.random() < 0.2 else rng.choice(PEOPLE)


def any_city(rng: random.Random) -> str:
    """A city's name, invented in one case out of seven."""
    return invented_word(rng).capitalize() if rng.random() < 0.15 else rng.choice(CITIES)


def date(rng: random.Random) -> str:
    """A date as 2027-03-14."""
    return f"{rng.randint(2024, 2031)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"


def joined(items: list[str]) -> str:
    """`a, b and c`."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def copied_words() -> set[str]:
    """The words of the lists whose items the model must copy, not know."""
    kinds = ("people", "cities", "colours", "animals", "fruits", "jobs", "objects", "foods", "languages", "rooms")
    return {word for kind in kinds for item in LISTS[kind] for word in item.split()}
