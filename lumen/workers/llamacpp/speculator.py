"""Guesses for the sequences of a step, and what becomes of them."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass

from lumen.workers.llamacpp.guess import Always, Lookup, Odds, Wager, at_first
from lumen.workers.llamacpp.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Guesses:
    """What may come after the next token of each sequence of a step; empty for some. `odds`: to be told how it went."""

    tokens: list[list[int]]
    odds: list[tuple[Odds, Odds] | None]
    depth: int


class Speculator:
    """On the engine's thread alone. `guess` before a decode, then `learn` or `without`."""

    def __init__(self, wager: Wager | Always) -> None:
        self._wager = wager
        self._odds = at_first()

    def guess(self, everyone: Many[Sequence]) -> Guesses | None:
        """What may come next; None where it would not pay."""
        most = self._wager.most(len(everyone))
        if not most:
            return None
        tokens: list[list[int]] = []
        odds: list[tuple[Odds, Odds] | None] = []
        likely: list[float] = []
        for sequence in everyone:
            if sequence.lookup is None:
                sequence.lookup = Lookup()
            # The last token of an answer has nothing behind it to guess.
            room = sequence.max_answer - sequence.answered - 1
            guess, grade = sequence.lookup.guess(sequence.tokens, most if most < room else room)
            tokens.append(guess)
            if guess:
                if sequence.odds is None:
                    sequence.odds = [known.fresh() for known in self._odds]
                likely.append(sequence.odds[grade].likely)
                odds.append((sequence.odds[grade], self._odds[grade]))
            else:
                odds.append(None)
        depth = self._wager.depth(len(everyone), likely, most) if likely else 0
        return Guesses([guess[:depth] for guess in tokens], odds, depth) if depth else None

    def learn(self, guesses: Guesses, held: list[int], seconds: float) -> None:
        """A decode of `guesses` took `seconds`; `held` of each one's tokens were drawn."""
        made = 0
        for guess, odds, good in zip(guesses.tokens, guesses.odds, held, strict=True):
            if odds is not None:
                made += 1
                for one in odds:
                    one.learn(good, len(guess))
        self._wager.guessed(len(held), made, guesses.depth, seconds, sum(held))

    def without(self, sequences: int, seconds: float) -> None:
        """A decode of one token for each of `sequences` took `seconds`."""
        self._wager.plain(sequences, seconds)
