"""Where guesses come from: one interface, for the text so far (here) and for a draft model (`drafter.py`)."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass, field
from typing import Protocol

from lumen.workers.llamacpp.guess import Lookup
from lumen.workers.llamacpp.sequence import Sequence


@dataclass(slots=True)
class Offer:
    """A guess that could be made for a sequence.

    `most`: its tokens at most. `grade`: what speaks for it. `tokens`: the guess, where it is known already. `behind`:
    tokens that have to be read before it can be made.
    """

    sequence: Sequence
    most: int
    grade: int
    tokens: list[int] = field(default_factory=list)
    behind: int = 0


class Guesser(Protocol):
    """On the engine's thread alone."""

    def offers(self, everyone: Many[Sequence], rooms: Many[int]) -> list[Offer | None]:
        """What could be guessed for each of `everyone`, `rooms` tokens at most; None: nothing."""
        ...

    def guess(self, offers: Many[Offer], depth: int) -> list[list[int]]:
        """The guesses of these of the last `offers`: `depth` tokens each at most, none where it cannot be made."""
        ...


class Texts:
    """Guesses what followed the last tokens where they stood before, in the prompt or the answer."""

    def offers(self, everyone: Many[Sequence], rooms: Many[int]) -> list[Offer | None]:
        found: list[Offer | None] = []
        for sequence, room in zip(everyone, rooms, strict=True):
            if sequence.lookup is None:
                sequence.lookup = Lookup()
            tokens, grade = sequence.lookup.guess(sequence.tokens, room)
            found.append(Offer(sequence, room, grade, tokens) if tokens else None)
        return found

    def guess(self, offers: Many[Offer], depth: int) -> list[list[int]]:
        return [offer.tokens[:depth] for offer in offers]
