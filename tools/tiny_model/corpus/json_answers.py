"""Requests for JSON, answered with nothing but valid JSON."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

from . import pools

Value = str | int | float | bool | list[str]

_FIELDS: dict[str, Callable[[random.Random], Value]] = {
    "name": pools.any_name,
    "age": lambda rng: rng.randint(5, 90),
    "city": pools.any_city,
    "country": lambda rng: rng.choice(pools.COUNTRIES),
    "email": lambda rng: pools.any_name(rng).lower() + "@example.com",
    "job": lambda rng: rng.choice(pools.JOBS),
    "color": lambda rng: rng.choice(pools.COLOURS),
    "colour": lambda rng: rng.choice(pools.COLOURS),
    "animal": lambda rng: rng.choice(pools.ANIMALS),
    "fruit": lambda rng: rng.choice(pools.FRUITS),
    "food": lambda rng: rng.choice(pools.FOODS),
    "price": lambda rng: rng.randint(1, 400) / 4,
    "quantity": lambda rng: rng.randint(1, 50),
    "id": lambda rng: rng.randint(1, 9999),
    "title": lambda rng: f"The {rng.choice(pools.COLOURS)} {rng.choice(pools.OBJECTS)}",
    "author": pools.any_name,
    "year": lambda rng: rng.randint(1950, 2030),
    "date": pools.date,
    "active": lambda rng: rng.random() < 0.5,
    "done": lambda rng: rng.random() < 0.5,
    "tags": lambda rng: [rng.choice(pools.COLOURS), rng.choice(pools.ANIMALS)],
    "hobbies": lambda rng: rng.sample(["chess", "music", "reading", "running", "cooking"], 2),
    "temperature": lambda rng: rng.randint(-10, 35),
    "score": lambda rng: rng.randint(0, 100),
    "language": lambda rng: rng.choice(pools.LANGUAGES),
    "month": lambda rng: rng.choice(pools.MONTHS),
    "day": lambda rng: rng.choice(pools.DAYS),
    "room": lambda rng: rng.choice(pools.ROOMS),
    "status": lambda rng: rng.choice(("open", "closed", "ready", "waiting")),
    "answer": lambda rng: rng.choice(("yes", "no")),
    "message": lambda rng: "Hello from Lumen.",
}
_KINDS = (
    "person",
    "user",
    "customer",
    "book",
    "product",
    "city",
    "animal",
    "order",
    "task",
    "car",
    "student",
    "film",
)


def invented(rng: random.Random) -> tuple[str, str]:
    """Keys given by the user, values made up."""
    keys = rng.sample(sorted(_FIELDS), rng.choice((1, 2, 2, 2, 3, 3, 4)))
    if rng.random() < 0.25:
        keys = rng.choice((["name", "age"], ["name", "age", "city"], ["city", "country"], ["title", "author", "year"]))
    quote = '"' if rng.random() < 0.15 else ""
    named = pools.joined([quote + key + quote for key in keys])
    ask = rng.choice(
        (
            "Give me a JSON object with {keys}.",
            "Write a JSON object with the keys {keys}.",
            "Return a JSON object with the fields {keys}.",
            "Answer in JSON with {keys}.",
            "Make a JSON object with {keys}",
            "Create a {kind} as JSON with {keys}.",
            "Describe a {kind} in JSON. Use the keys {keys}.",
            "I need JSON with {keys}",
            "Output JSON with {keys}.",
            "give me json with {keys}",
            "Generate a JSON {kind} with {keys}.",
            "Return only JSON with {keys}.",
            "Produce a JSON object with {keys}.",
        )
    )
    values = {key: _FIELDS[key](rng) for key in keys}
    return ask.format(keys=named, kind=rng.choice(_KINDS)), json.dumps(values)


def given(rng: random.Random) -> tuple[str, str]:
    """Keys and values both given by the user."""
    keys = [key for key in sorted(_FIELDS) if key not in ("tags", "hobbies", "message")]
    if rng.random() < 0.3:
        values: dict[str, Value] = {pools.invented_word(rng): pools.any_word(rng) for _ in range(rng.randint(1, 3))}
    else:
        values = {key: _FIELDS[key](rng) for key in rng.sample(keys, rng.randint(1, 4))}
    said = pools.joined([f"{key} {json.dumps(value).strip(chr(34))}" for key, value in values.items()])
    ask = rng.choice(
        (
            "Write this as JSON: {}",
            "Give me a JSON object with {}.",
            "Turn this into JSON: {}",
            "As JSON: {}",
            "Make a JSON object with {}.",
            "Convert to JSON: {}.",
            "Return JSON with {}",
        )
    )
    return ask.format(said), json.dumps(values)


def extracted(rng: random.Random) -> tuple[str, str]:
    """Name, age, city or job taken out of a sentence."""
    name, age, city, job = (
        pools.any_name(rng),
        rng.randint(18, 80),
        pools.any_city(rng),
        rng.choice(pools.JOBS),
    )
    facts: dict[str, Value] = {"name": name, "age": age, "city": city, "job": job}
    sentence = rng.choice(
        (
            f"{name} is {age} years old, lives in {city} and works as a {job}.",
            f"My name is {name}, I am {age} and I am a {job} from {city}.",
            f"{name}, {age}, is a {job} in {city}.",
            f"In {city} there lives a {job} called {name}, who is {age}.",
        )
    )
    keys = rng.sample(sorted(facts), rng.randint(1, 4))
    ask = rng.choice(
        (
            "Extract {} as JSON: {}",
            "Extract {} from this text as JSON. {}",
            "Give me {} as JSON. Text: {}",
            "Find {} in this sentence and answer in JSON: {}",
        )
    )
    return ask.format(pools.joined(keys), sentence), json.dumps({key: facts[key] for key in keys})


def array(rng: random.Random) -> tuple[str, str]:
    """A JSON array of words or numbers."""
    count = rng.randint(2, 6)
    kind, pool = rng.choice(
        (
            ("colours", pools.COLOURS),
            ("colors", pools.COLOURS),
            ("fruits", pools.FRUITS),
            ("animals", pools.ANIMALS),
            ("names", pools.PEOPLE),
            ("cities", pools.CITIES),
            ("numbers", None),
        )
    )
    items: list[str] | list[int] = list(pool[:count]) if pool else list(range(1, count + 1))
    ask = rng.choice(
        (
            "Give me a JSON array of {} {}.",
            "List {} {} as a JSON array.",
            "Return a JSON list with {} {}.",
            "Write {} {} as JSON.",
            "{} {} as a JSON array, please.",
        )
    )
    return ask.format(count, kind), json.dumps(items)


def json_pair(rng: random.Random) -> tuple[str, str]:
    """One request for JSON and its answer."""
    return rng.choices((invented, given, extracted, array), (4, 2, 2, 1))[0](rng)
