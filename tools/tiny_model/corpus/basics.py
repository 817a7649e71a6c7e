"""Sums, counting, lists, repeating and spelling: question and answer pairs made from rules."""

from __future__ import annotations

import random
from collections.abc import Callable

from . import pools

Pair = tuple[str, str]


def arithmetic(rng: random.Random) -> Pair:
    """A sum, difference, product or exact quotient of small numbers."""
    left, sign, right, result = _sum(rng)
    words = {"+": "plus", "-": "minus", "*": "times", "/": "divided by"}
    written = sign if rng.random() < 0.75 else {"*": "x", "/": "÷"}.get(sign, sign)
    gap = "" if rng.random() < 0.3 else " "
    task = f"{left} {words[sign]} {right}" if rng.random() < 0.3 else f"{left}{gap}{written}{gap}{right}"
    ask = rng.choice(
        (
            "What is {}?",
            "what is {}",
            "Calculate {}.",
            "{} = ?",
            "How much is {}?",
            "Compute {}.",
            "{}",
            "{}?",
            "{}=",
            "What's {}?",
            "Please calculate {}.",
            "Solve {}.",
            "Tell me what {} is.",
        )
    )
    return ask.format(task), f"{left} {sign} {right} = {result}"


def small_sum(rng: random.Random) -> Pair:
    """A sum of two numbers up to ten, of which there are few enough to know by heart."""
    left, right = rng.randint(0, 10), rng.randint(0, 10)
    sign = "+" if rng.random() < 0.7 else "-"
    if sign == "-":
        left, right = max(left, right), min(left, right)
    gap = "" if rng.random() < 0.4 else " "
    ask = rng.choice(("What is {}?", "what is {}", "{}", "How much is {}?", "Calculate {}.", "What's {}?", "{} = ?"))
    return ask.format(f"{left}{gap}{sign}{gap}{right}"), f"{left} {sign} {right} = {_result(left, sign, right)}"


def _result(left: int, sign: str, right: int) -> int:
    """The value of a sum or difference."""
    return left + right if sign == "+" else left - right


def _sum(rng: random.Random) -> tuple[int, str, int, int]:
    sign = rng.choice("++--*/")
    if sign in "*/":
        left, right = rng.randint(0, 12), rng.randint(1, 12)
        return (left, "*", right, left * right) if sign == "*" else (left * right, "/", right, left)
    top = rng.choice((10, 10, 20, 100))
    left, right = rng.randint(0, top), rng.randint(0, top)
    if sign == "-":
        left, right = max(left, right), min(left, right)
    return left, sign, right, _result(left, sign, right)


def word_problem(rng: random.Random) -> Pair:
    """Apples that are bought or eaten."""
    who, thing = pools.any_name(rng), rng.choice(pools.FRUITS) + "s"
    first, second = rng.randint(2, 12), rng.randint(1, 9)
    if rng.random() < 0.5 or second > first:
        question = f"{who} has {first} {thing} and buys {second} more. How many {thing} does {who} have?"
        return question, f"{first} + {second} = {first + second}, so {who} has {first + second} {thing}."
    question = f"{who} has {first} {thing} and eats {second}. How many {thing} are left?"
    return question, f"{first} - {second} = {first - second}, so {first - second} {thing} are left."


def counting(rng: random.Random) -> Pair:
    """Count up or down, or by a step."""
    start, end = 1, rng.choice((3, 5, 8, 10, 10, 12, 15, 20, 20, 25, 30, 40, 50, 60, 75, 100, 100))
    if rng.random() < 0.25:
        ask = rng.choice(("Count down from {b} to {a}.", "Count backwards from {b} to {a}."))
        end = min(end, 30)
        return ask.format(a=start, b=end), ", ".join(str(n) for n in range(end, start - 1, -1))
    if rng.random() < 0.25:
        start = rng.randint(2, 60)
        end = start + rng.randint(2, 30)
    asks = [
        "Count from {a} to {b}.",
        "count from {a} to {b}",
        "List the numbers from {a} to {b}.",
        "Write the numbers {a} to {b}.",
        "Please count from {a} to {b}",
        "Say the numbers from {a} to {b}.",
    ]
    if start == 1:
        asks += ["Count to {b}.", "count to {b}", "Can you count to {b}?"]
    return rng.choice(asks).format(a=start, b=end), ", ".join(str(n) for n in range(start, end + 1))


_LISTS = {
    "colours": pools.COLOURS,
    "colors": pools.COLOURS,
    "animals": pools.ANIMALS,
    "fruits": pools.FRUITS,
    "jobs": pools.JOBS,
    "cities": pools.CITIES,
    "foods": pools.FOODS,
    "names": pools.PEOPLE,
    "months": pools.MONTHS,
    "countries": pools.COUNTRIES,
    "days": pools.DAYS,
    "languages": pools.LANGUAGES,
}
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven")


def listing(rng: random.Random) -> Pair:
    """The first few items of a known list, in a sentence or as bullet points."""
    kind = rng.choice(sorted(_LISTS))
    count = rng.randint(2, 7)
    items = list(_LISTS[kind][:count])
    number = str(count) if rng.random() < 0.5 else _NUMBERS[count]
    ask = rng.choice(("Name {} {}", "List {} {}", "Give me {} {}", "Tell me {} {}", "Write down {} {}", "name {} {}"))
    question = ask.format(number, kind)
    if rng.random() < 0.3:
        how = rng.choice((" as a list", " as bullet points", ", one per line"))
        return question + how + ".", "\n".join(f"- {item}" for item in items)
    return question + rng.choice((".", "", " please.")), pools.joined(items).capitalize() + "."


def repeating(rng: random.Random) -> Pair:
    """Say again what the user wrote, unchanged."""
    words = [pools.any_word(rng) for _ in range(rng.choice((1, 1, 2, 3, 4, 6)))]
    text = " ".join(words)
    if rng.random() < 0.3:
        text = text.capitalize()
    if rng.random() < 0.2:
        text = str(rng.randint(0, 99999))
    ask = rng.choice(
        (
            "Repeat after me: {}",
            "Say {}",
            "Say '{}'",
            'Say "{}"',
            "Repeat: {}",
            "Reply with exactly: {}",
            "Echo {}",
            "Write the word {}",
            "Answer only with {}",
            "Reply with the word {}",
            "say {}",
            "Please repeat: {}",
            "Just say {}",
            "Respond with: {}",
        )
    )
    return ask.format(text), text


def spelling(rng: random.Random) -> Pair:
    """The letters of a word, or how many there are."""
    word = pools.any_word(rng)
    letters = "-".join(word.upper())
    if rng.random() < 0.3:
        return f"How many letters are in {word}?", f"{letters}: {len(word)} letters."
    return rng.choice(("Spell {}.", "How do you spell {}?", "spell the word {}")).format(word), letters


def comparing(rng: random.Random) -> Pair:
    """Which of two numbers is larger."""
    left, right = rng.sample(range(100), 2)
    if rng.random() < 0.5:
        question = rng.choice(("Which is larger, {} or {}?", "What is bigger, {} or {}?", "Is {} larger or {}?"))
        return question.format(left, right), f"{max(left, right)} is larger than {min(left, right)}."
    question = rng.choice(("Which is smaller, {} or {}?", "What is less, {} or {}?"))
    return question.format(left, right), f"{min(left, right)} is smaller than {max(left, right)}."


GENERATORS: tuple[tuple[Callable[[random.Random], Pair], float], ...] = (
    (arithmetic, 6.0),
    (word_problem, 0.8),
    (counting, 1.2),
    (listing, 1.5),
    (repeating, 2.5),
    (spelling, 0.8),
    (comparing, 0.6),
)


def basic(rng: random.Random) -> Pair:
    """One pair from any of the generators."""
    makers, weights = zip(*GENERATORS, strict=True)
    pair: Pair = rng.choices(makers, weights)[0](rng)
    return pair
