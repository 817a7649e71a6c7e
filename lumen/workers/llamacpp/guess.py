"""PURE: guessing the next tokens of answers, and whether that pays.

A guess of k tokens is computed together with the token that is due, in one decode. Each of its rows is then drawn from
as if nothing had been guessed, and the draws go on as long as they are what was guessed: the answer is the same, token
for token, only sooner. What a decode of more rows costs, and how often guesses hold, is measured as it goes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

ROWS = 16
"""Rows of one decode that guesses may take, over all sequences."""

DEPTHS = (1, 3, 7, 15)
"""Tokens of a guess: with the one that is due a number of rows that kernels' tiles are filled by."""

_GRAM = 3
_LOOK_BACK = 4096
_LONG = (6, 12)
"""Tokens in a row that are found again from which on a guess is of the next grade."""
_AT_FIRST = (0.4, 0.65, 0.85)
"""How likely a token of a guess of each grade holds, before anything is known."""
_FADES = 0.8
"""What earlier guesses of a sequence count for after each later one."""
_STARTS_WITH = 2.0
"""Guesses that what is known of other sequences counts for."""
_GAIN = 1.03
"""Tokens a second, as a multiple of those without, from which on it is worth while."""
_SLOPE = 0.25
"""Share of a decode that one more row takes, before it was measured."""
_SPARED = 0.01
"""Share of the time that guesses which do not hold may cost."""
_PURSE = 8.0
"""Decodes that may be lost at once."""
_REFRESH = 32
"""Guesses in a row after which one decode goes without, so that the time of one is known."""
_LAST = 8
"""Times from which the usual one is taken."""


class Lookup:
    """Prompt lookup: what followed the last tokens where they stood before is likely to follow again.

    Source of method: A. Saxena, "Prompt Lookup Decoding" (2023).
    """

    def __init__(self) -> None:
        self._after: dict[int, int] = {}  # tokens that follow each other → the place behind them
        self._next = 0

    def guess(self, tokens: list[int], most: int) -> tuple[list[int], int]:
        """Up to `most` tokens that may follow `tokens`, which only ever grow, and how much speaks for them (a grade).

        None where nothing does.
        """
        end, after = len(tokens), self._after
        if end < _GRAM or most < 1:
            return [], 0
        # The last gram is left out: nothing follows it yet.
        for place in range(max(self._next, end - _LOOK_BACK, _GRAM), end):
            after[_gram(tokens, place)] = place
        self._next = end
        found = after.get(_gram(tokens, end))
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


def _gram(tokens: list[int], end: int) -> int:
    """The tokens before `end` as one number."""
    return (tokens[end - 3] << 64) | (tokens[end - 2] << 32) | tokens[end - 1]


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


def hoped(likely: float, depth: int) -> float:
    """Tokens of a guess of `depth` that hold on average."""
    return float(depth) if likely >= 1.0 else likely * (1.0 - likely**depth) / (1.0 - likely)


class Recent:
    """Of the last few of some times one of the short ones: other programs only ever make them longer."""

    def __init__(self, first: float, most: int) -> None:
        self._last = deque([first], most)
        self.usual = first

    def add(self, number: float) -> None:
        self._last.append(number)
        self.usual = sorted(self._last)[len(self._last) // 4]


@dataclass(slots=True)
class Wager:
    """Whether to guess, and how far. `purse`: decodes without guesses that may be lost; each one adds a hundredth."""

    purse: float = _PURSE
    _plain: dict[int, Recent] = field(default_factory=dict)  # seconds of a decode without guesses, by sequences
    _slopes: dict[tuple[int, int], Recent] = field(default_factory=dict)  # by sequences and depth
    _row: int = 0  # guesses since the last decode without

    def most(self, sequences: int) -> int:
        """The longest guess worth thinking of for each of `sequences` in this step; 0: none."""
        if sequences not in self._plain or self.purse < 0.0 or self._row >= _REFRESH:
            return 0
        return _deepest(sequences)

    def depth(self, sequences: int, likely: Sequence[float], most: int) -> int:
        """How far to guess for those of `sequences` that have a guess, by how likely each one's tokens hold."""
        best, depth = _GAIN, 0
        for one in DEPTHS:
            if one > most:
                break
            gain = sum(hoped(chance, one) for chance in likely)
            rate = (1.0 + gain / sequences) / (1.0 + self._slope(sequences, one) * one * len(likely) / sequences)
            if rate > best:
                best, depth = rate, one
        if not depth and self.purse >= _PURSE:
            return min(most, DEPTHS[1])  # nothing speaks for it, but there is time to see whether that still holds
        return depth

    def _slope(self, sequences: int, depth: int) -> float:
        known = self._slopes.get((sequences, depth))
        if known is not None:
            return known.usual
        return min((slope.usual for (n, _), slope in self._slopes.items() if n == sequences), default=_SLOPE)

    def plain(self, sequences: int, seconds: float) -> None:
        """A decode of one token for each of `sequences` took `seconds`."""
        self._row = 0
        known = self._plain.get(sequences)
        if known is None:
            self._plain[sequences] = Recent(seconds, _LAST)
        else:
            known.add(seconds)
        self._earn(_SPARED)

    def guessed(self, sequences: int, guesses: int, depth: int, seconds: float, held: int) -> None:
        """A decode with `guesses` guesses of `depth` took `seconds`, and `held` guessed tokens were drawn."""
        self._row += 1
        rows = depth * guesses / sequences
        slope = max(0.0, seconds / self._plain[sequences].usual - 1.0) / rows
        known = self._slopes.get((sequences, depth))
        if known is None:
            known = self._slopes[sequences, depth] = Recent(slope, _LAST)
        else:
            known.add(slope)
        # What such a decode usually takes: this one's time may tell of other programs.
        self._earn(_SPARED + held / sequences - known.usual * rows)

    def _earn(self, decodes: float) -> None:
        self.purse = min(self.purse + decodes, _PURSE)


class Always:
    """Guesses wherever anything speaks for it, whatever that costs."""

    def most(self, sequences: int) -> int:
        return min(_deepest(sequences), DEPTHS[1])

    def depth(self, sequences: int, likely: Sequence[float], most: int) -> int:
        return most

    def plain(self, sequences: int, seconds: float) -> None:
        return

    def guessed(self, sequences: int, guesses: int, depth: int, seconds: float, held: int) -> None:
        return


def _deepest(sequences: int) -> int:
    return max((depth for depth in DEPTHS if depth * sequences <= ROWS), default=0)
