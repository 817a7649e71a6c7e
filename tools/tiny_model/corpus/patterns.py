"""Question files: blocks of patterns that share one answer, where a pattern stands for many wordings."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import pools

_CHOICE = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Topic:
    """One answer and the patterns of the questions it answers."""

    name: str
    questions: tuple[str, ...]
    answer: str
    lists: dict[str, str]
    weight: int

    def ask(self, rng: random.Random) -> str:
        """One question, every wording of the drawn pattern equally likely."""
        return expand(rng.choice(self.questions), self.lists, rng)


def expand(pattern: str, lists: dict[str, str], rng: random.Random) -> str:
    """Replace each `{a|b}` by one of its choices; a choice `$name` stands for the items of that list."""
    while match := _CHOICE.search(pattern):
        choices: list[str] = []
        for choice in match[1].split("|"):
            choices += lists[choice[1:]].split("|") if choice.startswith("$") else [choice]
        pattern = pattern[: match.start()] + rng.choice(choices) + pattern[match.end() :]
    return pattern


def load(name: str) -> list[Topic]:
    """Read one of the question files beside this module; they may use the word lists of pools.py too."""
    return parse((Path(__file__).parent / name).read_text(encoding="utf-8"), pools.LISTS)


def parse(text: str, known: Mapping[str, Sequence[str]] | None = None) -> list[Topic]:
    """Parse `@name = list`, `[topic]`, `Q: pattern` and `A: answer` lines; `#` begins a comment.

    Each plus sign after a topic adds one to its weight.


    Raises ValueError for any other line and for a topic without question or answer.
    """
    lists = {name: "|".join(items) for name, items in (known or {}).items()}
    topics: list[Topic] = []
    name, weight, questions, answers = "", 1, list[str](), list[str]()
    for number, line in enumerate([*text.splitlines(), "[end]"], 1):
        if not line or line.startswith("#"):
            continue
        if line.startswith("@"):
            key, _, value = line[1:].partition(" = ")
            lists[key] = value
        elif line.startswith("["):
            if name and not (questions and answers):
                raise ValueError(f"topic {name!r} lacks a question or an answer")
            if name:
                topics.append(Topic(name, tuple(questions), "\n".join(answers), lists, weight))
            name, _, marks = line[1:].partition("]")
            weight, questions, answers = 1 + len(marks.strip()), [], []
        elif line.startswith("Q: "):
            questions.append(line[3:])
        elif line.startswith("A:"):
            answers.append(line[3:])
        else:
            raise ValueError(f"line {number} is neither list, topic, question nor answer: {line!r}")
    return topics


_LEADS = (
    "Hi, ",
    "Hey, ",
    "Hello! ",
    "Please tell me: ",
    "Quick question: ",
    "Tell me, ",
    "So, ",
    "Lumen, ",
    "And ",
    "Now, ",
    "I wonder: ",
    "Question: ",
    "One more thing: ",
)
_TAILS = (" please", ", please", " Thanks.", " Answer in one sentence.", " Be brief.", " Thank you!")


def roughen(question: str, rng: random.Random) -> str:
    """Vary case, punctuation and politeness as people do, and misspell a word now and then."""
    if rng.random() < 0.06:
        question = _misspell(question, rng)
    lead = rng.choice(_LEADS) if rng.random() < 0.15 else ""
    if not lead and rng.random() < 0.65:
        question = question[:1].upper() + question[1:]
    if question[-1:].isalnum() or question.endswith("`"):
        question += "" if rng.random() < 0.3 else _mark(question)
    tail = rng.choice(_TAILS) if rng.random() < 0.1 else ""
    if tail.startswith((" p", ",")):
        question = question.rstrip("?.!")
    question = lead + question + tail
    return question.lower() if rng.random() < 0.08 else question


def _mark(question: str) -> str:
    first = question.split(maxsplit=1)[0].lower()
    return "?" if first.removesuffix("'s") in _QUESTION_WORDS else "."


_QUESTION_WORDS = frozenset(
    (
        "what",
        "who",
        "how",
        "where",
        "when",
        "why",
        "which",
        "is",
        "are",
        "can",
        "does",
        "do",
        "will",
        "should",
    )
)


def _misspell(question: str, rng: random.Random) -> str:
    at = rng.randrange(len(question))
    return question[:at] + question[at + 1 :] if len(question) > 8 else question
