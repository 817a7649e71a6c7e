"""How often a seam is put in the wrong place, over text made to mislead it: answers that repeat themselves.

A wrong seam doubles or loses text. Counted at every cut, over targets that do as they were asked and over those that
do not.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from lumen.wire.anchor import anchor, split
from lumen.wire.anchored import Anchored
from lumen.wire.matching import Diverged, Matcher, Prefill

_RANDOM = random.Random(7)
_WORDS = ("the", "a", "cat", "dog", "sat", "ran", "on", "in", "mat", "house", "and", "then", "it", "was")


def _words(count: int, vocabulary: int = 14) -> str:
    return " ".join(_RANDOM.choice(_WORDS[:vocabulary]) for _ in range(count))


# Repeats words, phrases and lines, but is no loop.
ORDINARY = {
    "prose": "The fox jumps over the dog. It does so every day, and nobody has ever asked it why it would. One day a "
    "gateway wanted to know, and so it sent a request to each of the animals.\n\nNobody answered. The fox kept "
    "jumping, the dog kept sleeping, and the gateway kept asking.",
    "nine words": _words(60, 9),
    "refrain": "\n".join(
        line
        for _ in range(4)
        for line in (f"{_words(6).capitalize()},", "And the rain it raineth every day,", "With hey, ho, the wind.")
    ),
    "table": "| name | unit |\n|------|------|\n" + "".join(f"| item {i} | ms |\n" for i in range(12)),
    "code": "".join(
        f"    def test_{name}(self, client):\n        assert client.get('/{name}').status == 200\n\n"
        for name in ("a", "users", "items", "users_all")
    ),
    "list": "[\n" + ",\n".join(f'  {{"id": {i}, "kind": "user", "active": true}}' for i in range(6)) + "\n]",
    "cjk": "".join(_RANDOM.choice("日月火水木金土山川田人大小上下") for _ in range(200)),
    "dna": "".join(_RANDOM.choice("ACGT") for _ in range(250)),
}
# The same again and again: here nothing in the text can tell an echo from going on.
LOOPS = {
    "sentence": "All work and no play makes Jack a dull boy. " * 6,
    "rule": "=-" * 60,
    "letters": "abcdefghijklmnopqrstuvwxyz0123" * 5,
    "halves": "This is one half of the answer with nothing special in it" * 2,
}
# Characters: shorter answers so far are too short to judge by.
_SHORT = 24


def _outcome(matcher: Matcher, text: str, size: int) -> str | None:
    """What the client would get; `None` where the target is refused. Nothing may be given before a refusal."""
    given = ""
    try:
        for at in range(0, len(text), size):
            given += matcher.push(text[at : at + size])
        return given + matcher.end()
    except Diverged:
        assert given == ""
        return None


def _cases(behaviour: str, full: str) -> Iterator[tuple[str, Matcher, str]]:
    """Every cut: what the client has, the seam, and what the target sends."""
    for cut in range(1, len(full) - 1):
        before = full[:cut]
        sent, _ = split(before)
        if not sent:
            continue
        rest = full[len(sent) :]
        wordwise = next((i for i in range(max(0, len(sent) - 90), len(sent)) if i == 0 or full[i - 1].isspace()), 0)
        if behaviour == "prefill":
            yield before, Prefill(before), rest
        elif behaviour == "anchored":
            yield before, Anchored(before), anchor(sent) + rest
        elif len(sent) < _SHORT * 2:
            continue
        elif behaviour == "prefill, echoes all":
            yield before, Prefill(before), full
        elif behaviour == "prefill, echoes the end":
            yield before, Prefill(before), anchor(sent) + rest
        elif behaviour == "prefill, starts over":
            yield before, Prefill(before), full[:30] + "~" + full[31:]
        elif behaviour == "anchored, repeats more":
            yield before, Anchored(before), full[wordwise:]
        elif behaviour == "anchored, repeats all":
            yield before, Anchored(before), full
        else:
            yield before, Anchored(before), rest


def rates(behaviour: str, texts: dict[str, str]) -> tuple[float, float]:
    """The shares of wrong seams and of refusals."""
    cases = wrong = refused = 0
    for full in texts.values():
        for before, matcher, sent in _cases(behaviour, full):
            got = _outcome(matcher, sent, 1 + cases % 7)
            cases += 1
            refused += got is None
            wrong += got is not None and before + got != full
    return wrong / cases, refused / cases


@pytest.mark.parametrize(
    ("behaviour", "ordinary", "loops"),
    [
        # (wrong at most, refused at most), over ordinary text and over loops
        ("prefill", (0, 0), (0.025, 0)),
        ("anchored", (0, 0), (0, 0)),
        ("prefill, echoes all", (0, 0), (0.1, 0)),
        ("prefill, echoes the end", (0, 0), (0.2, 0)),
        ("prefill, starts over", (0, 1), (0.5, 1)),
        ("anchored, repeats more", (0, 0), (0.12, 0.2)),
        ("anchored, repeats all", (0, 0), (0.02, 0.2)),
        ("anchored, repeats nothing", (0.005, 1), (0.3, 1)),
    ],
)
def test_wrong_seams(behaviour: str, ordinary: tuple[float, float], loops: tuple[float, float]) -> None:
    for texts, bounds in ((ORDINARY, ordinary), (LOOPS, loops)):
        found = rates(behaviour, texts)
        assert found[0] <= bounds[0] and found[1] <= bounds[1], found
