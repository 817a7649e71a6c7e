"""PURE: guessing the next tokens of answers from their own text, and how often guesses hold.

A guess of k tokens is computed together with the token that is due, in one decode. Each of its rows is then drawn from
as if nothing had been guessed, and the draws go on as long as they are what was guessed: the answer is the same, token
for token, only sooner. `wager.py` decides whether that pays.
"""

from __future__ import annotations

from dataclasses import dataclass

_GRAM = 3
_LAST = (1 << 32 * _GRAM) - 1
"""The bits of so many tokens."""
_LOOK_BACK = 4096
_LONG = (6, 12)
"""Tokens in a row that are found again from which on a guess is of the next grade."""
DRAFT = 3
"""The grade of what a draft model guesses."""
_AT_FIRST = (0.4, 0.65, 0.85, 0.7)
"""How likely a token of a guess of each grade holds, before anything is known."""
_FADES = 0.8
"""What earlier guesses of a sequence count for after each later one."""
_STARTS_WITH = 2.0
"""Guesses that what is known of other sequences counts for."""


class Lookup:
    """Prompt lookup: what followed the last tokens where they stood before is likely to follow again.

    Source of method: A. Saxena, "Prompt Lookup Decoding" (2023).
    """

    def __init__(self) -> None:
        self._after: dict[int, int] = {}  # tokens that follow each other → the place behind them
        self._next = 0
        self._gram = 0  # the tokens before that place

    def guess(self, tokens: list[int], most: int) -> tuple[list[int], int]:
        """Up to `most` tokens that may follow `tokens`, which only ever grow, and how much speaks for them (a grade).

        None where nothing does.
        """
        end, after = len(tokens), self._after
        if end < _GRAM or most < 1:
            return [], 0
        place, gram = max(self._next, end - _LOOK_BACK, _GRAM), self._gram
        if place != self._next:
            gram = (tokens[place - 3] << 64) | (tokens[place - 2] << 32) | tokens[place - 1]
        while place < end:  # the last gram is left out: nothing follows it yet
            after[gram] = place
            gram = ((gram << 32) | tokens[place]) & _LAST
            place += 1
        self._next, self._gram = end, gram
        found = after.get(gram)
        if found is None:
            return [], 0
        guess = tokens[found : found + most]
        if len(guess) < most:  # what repeats itself goes on repeating itself
            guess = (guess * -(-most // len(guess)))[:most]
        return guess, _grade(tokens, end, found)


def _grade(tokens: list[int], end: int, found: int) -> int:
    """How long what was before `found` has been the same as what is before `end`, as one of a few grades."""
    alike = _GRAM
    while alike < _LONG[-1] and alike < found and tokens[found - alike - 1] == tokens[end - alike - 1]:
        alike += 1
    return sum(alike >= long for long in _LONG)


@dataclass(slots=True)
class Odds:
    """How often a guessed token held, of late: of one sequence, or of all."""

    held: float
    tried: float

    @property
    def likely(self) -> float:
        return self.held / self.tried

    def learn(self, held: int, guessed: int) -> None:
        """`held` tokens of a guess were drawn; behind the first that was not, nothing is known."""
        self.held = _FADES * self.held + held
        self.tried = _FADES * self.tried + held + (held < guessed)

    def fresh(self) -> Odds:
        """What to think of a sequence nothing is known of yet."""
        return Odds(self.likely * _STARTS_WITH, _STARTS_WITH)


def at_first() -> list[Odds]:
    """Odds of each grade before anything is known."""
    return [Odds(likely * _STARTS_WITH, _STARTS_WITH) for likely in _AT_FIRST]
