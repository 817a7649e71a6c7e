"""Tools to learn calls from, read from tools.txt."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import pools

Value = str | int | float
Maker = Callable[[random.Random], Value]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter under any of its names; `kind` is its JSON type, `make` draws a value as users say it."""

    names: tuple[str, ...]
    kind: str
    make: Maker
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """`asks` hold `{0}`, `{1}` … for the values; parameters an ask leaves out are optional and not passed.

    `results` are what the tool may answer and what the model then says, filled from the same values
    and from a drawn number `{n}`, word `{w}` and minutes `{m}`.
    """

    names: tuple[str, ...]
    description: str
    parameters: tuple[Parameter, ...]
    asks: tuple[str, ...]
    results: tuple[tuple[str, str], ...]


def load() -> tuple[ToolSpec, ...]:
    """Read tools.txt; its head explains the format. Raises ValueError for a line that does not fit it."""
    text = (Path(__file__).parent / "tools.txt").read_text(encoding="utf-8")
    blocks = [block for block in text.split("\n\n") if block.startswith("[")]
    return tuple(_spec(block.strip().splitlines()) for block in blocks)


def _spec(lines: list[str]) -> ToolSpec:
    fields: dict[str, list[str]] = {"D: ": [], "P: ": [], "Q: ": [], "R: ": []}
    for line in lines[1:]:
        if line[:3] not in fields:
            raise ValueError(f"not a line of a tool: {line!r}")
        fields[line[:3]].append(line[3:])
    (description,) = fields["D: "]
    pairs = [line.split(" => ") for line in fields["R: "]]
    return ToolSpec(
        tuple(lines[0].strip("[]").split()),
        description,
        tuple(_parameter(line) for line in fields["P: "]),
        tuple(fields["Q: "]),
        tuple((result, reply) for result, reply in pairs),
    )


def _parameter(line: str) -> Parameter:
    names, _, kind = line.partition(" = ")
    word, *rest = kind.split(maxsplit=1)
    if word == "one":
        choices = tuple(rest[0].split("|"))
        return Parameter(tuple(names.split()), "string", lambda rng: rng.choice(choices), choices)
    if word in ("integer", "number"):
        low, high = (int(bound) for bound in rest[0].split())
        return Parameter(tuple(names.split()), word, _numeral(low, high, fractions=word == "number"))
    return Parameter(tuple(names.split()), "string", _MAKERS[word])


def _numeral(low: int, high: int, *, fractions: bool) -> Maker:
    def make(rng: random.Random) -> int | float:
        if fractions and rng.random() < 0.3:
            return rng.randint(low * 10, high * 10) / 10
        return rng.randint(low, high)

    return make


def _phrase(rng: random.Random) -> str:
    return " ".join(pools.any_word(rng) for _ in range(rng.randint(1, 3)))


def _topic(rng: random.Random) -> str:
    return rng.choice(pools.TOPICS) if rng.random() < 0.6 else _phrase(rng)


def _expression(rng: random.Random) -> str:
    left, right = rng.randint(1, 999), rng.randint(1, 999)
    return f"{left}{rng.choice(('+', '-', '*', '/', ' + ', ' * ', ' - '))}{right}"


def _file(rng: random.Random) -> str:
    return pools.any_word(rng) + rng.choice((".txt", ".md", ".py", ".csv", ".json"))


def _symbol(rng: random.Random) -> str:
    return "".join(rng.choices("ABCDEFGHIJKLMNOPRSTUVWXYZ", k=rng.randint(2, 4)))


_ZONES = ("Europe/Paris", "Asia/Tokyo", "America/New_York", "UTC", "Europe/London", "Africa/Cairo")
_MAKERS: dict[str, Maker] = {
    "broken": lambda rng: f"{pools.any_word(rng)} is broken",
    "city": pools.any_city,
    "date": pools.date,
    "email": lambda rng: pools.any_name(rng).lower() + "@example.com",
    "expression": _expression,
    "file": _file,
    "food": lambda rng: rng.choice(pools.FOODS),
    "language": lambda rng: rng.choice(pools.LANGUAGES),
    "meeting": lambda rng: "meeting with " + pools.any_name(rng),
    "name": pools.any_name,
    "note": lambda rng: f"buy {pools.any_word(rng)}",
    "phrase": _phrase,
    "room": lambda rng: rng.choice(pools.ROOMS),
    "symbol": _symbol,
    "topic": _topic,
    "word": pools.any_word,
    "zone": lambda rng: rng.choice(_ZONES),
}
SPECS = load()
