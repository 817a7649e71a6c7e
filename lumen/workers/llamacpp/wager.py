"""PURE: whether guessing tokens pays, whose guesses, and how far ahead.

What a decode of more rows costs, what a draft model's own decodes cost, and how often guesses hold, is measured as it
goes. Everything is counted in decodes without guesses: the time of one such decode for as many sequences as run now.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

ROWS = 16
"""Rows of one decode that guesses may take, over all sequences."""

DEPTHS = (1, 3, 7, 15)
"""Tokens of a guess: with the one that is due a number of rows that kernels' tiles are filled by."""

_GAIN = 1.03
"""Tokens a second, as a multiple of those without, from which on it is worth while."""
_SLOPE = 0.25
"""Share of a decode that one more row takes, before it was measured."""
_SPARED = 0.01
"""Share of the time that guesses from the text which do not hold may cost."""
_SPARED_DRAFT = 0.005
"""The same of a draft model's guesses, and again of what it reads to be able to guess."""
_PURSE = 8.0
"""Decodes that may be lost at once."""
_SAVED = 64.0
"""Decodes won by a draft model that are kept to be spent on what it reads."""
_PROVEN = 32.0
"""Decodes won from which on it may read as much as seems worth while."""
_DEAREST_TRY = 16.0
"""Decodes that it may take at most to read what a try needs."""
_REFRESH = 32
"""Guesses in a row after which one decode goes without, so that the time of one is known."""
_LAST = 8
"""Times from which the usual one is taken."""
_USUAL_REST = 256
"""Tokens that an answer is thought to go on for at most."""


def hoped(likely: float, depth: int) -> float:
    """Tokens of a guess of `depth` that hold on average."""
    return float(depth) if likely >= 1.0 else likely * (1.0 - likely**depth) / (1.0 - likely)


class Recent:
    """Of the last few of some times one of the short ones: other programs only ever make them longer.

    `first`: a first guess counts like a measurement, so that one slow decode at the beginning decides nothing.
    """

    def __init__(self, first: float, most: int) -> None:
        self._last = deque([first], most)

    def add(self, number: float) -> None:
        self._last.append(number)

    @property
    def usual(self) -> float:
        return sorted(self._last)[len(self._last) // 4]


@dataclass(frozen=True, slots=True)
class Choice:
    """How far to guess (0: not at all), and for each sequence who does: the draft model, the text, or nobody."""

    depth: int
    text: tuple[bool, ...]
    draft: tuple[bool, ...]


NOTHING = Choice(0, (), ())


@dataclass(slots=True)
class Tally:
    """Rows of a decode that held guesses of one kind, and how many of these were drawn."""

    rows: int = 0
    held: int = 0


Chances = Sequence[float | None]
"""For each sequence, how likely a guessed token holds; None: there is no guess."""


@dataclass(slots=True)
class Wager:
    """Whether to guess, by whom, and how far.

    `purse`: decodes that guesses from the text may lose; each decode adds a hundredth, each gain what was gained.
    `stake`: the same for a draft model's guesses. `advance`: the same for what it must read first. `share`: a decode of
    the draft model as a share of one of the model, before it was measured.
    """

    purse: float = _PURSE
    stake: float = _PURSE
    advance: float = 0.0
    share: float = 0.25
    _plain: dict[int, Recent] = field(default_factory=dict)  # seconds of a decode without guesses, by sequences
    _slopes: dict[tuple[int, int], Recent] = field(default_factory=dict)  # by sequences and depth
    _drafts: dict[int, Recent] = field(default_factory=dict)  # seconds of a decode of the draft, by its sequences
    _reading: Recent | None = None  # seconds a token that the draft reads
    _row: int = 0  # guesses since the last decode without

    def most(self, sequences: int) -> int:
        """The longest guess worth thinking of for each of `sequences` in this step; 0: none."""
        broke = self.purse < 0.0 and self.stake < 0.0
        if sequences not in self._plain or broke or self._row >= _REFRESH:
            return 0
        return deepest(sequences)

    def choose(self, text: Chances, draft: Chances, most: int) -> Choice:
        """Who guesses for each sequence, and how far. `text`: what the text so far speaks for, which costs no time."""
        free, paid = self._sides(text, draft)
        free_rate, free_depth = self._best(free, most)
        paid_rate, paid_depth = self._best(paid, most) if any(paid.draft) else (0.0, 0)
        if paid_depth and paid_rate > free_rate:
            return paid.choice(paid_depth)
        trying = min(most, DEPTHS[1])  # where nothing speaks for it there may be time to see whether that still holds
        curious = any(paid.draft) and self.stake >= _PURSE
        if free_depth:
            idle = any(by and not known for by, known in zip(paid.draft, free.text, strict=True))
            return paid.choice(trying) if idle and curious else free.choice(free_depth)
        if any(free.text) and self.purse >= _PURSE:
            return free.choice(trying)
        return paid.choice(trying) if curious else NOTHING

    def _sides(self, text: Chances, draft: Chances) -> tuple[_Side, _Side]:
        """Guesses from the text alone, and those with the draft's wherever these are likelier."""
        known = text if self.purse >= 0.0 else [None] * len(text)
        made = draft if self.stake >= 0.0 else [None] * len(draft)
        better = [one is not None and (other is None or one > other) for one, other in zip(made, known, strict=True)]
        mixed = [one if by else other for one, other, by in zip(made, known, better, strict=True)]
        return _Side(known, [False] * len(known)), _Side(mixed, better)

    def _best(self, side: _Side, most: int) -> tuple[float, int]:
        """Tokens a second as a multiple of those without, and the depth that gives them; depth 0: none is worth it."""
        n, likely = len(side.chances), [chance for chance in side.chances if chance is not None]
        drafting = self._drafting(n, sum(side.draft)) if any(side.draft) else 0.0
        best, depth = _GAIN, 0
        for one in DEPTHS:
            if one > most or not likely:
                break
            gain = sum(hoped(chance, one) for chance in likely)
            cost = self._slope(n, one) * one * len(likely) / n + drafting * one
            rate = (1.0 + gain / n) / (1.0 + cost)
            if rate > best:
                best, depth = rate, one
        return best, depth

    def tries(self, begun: bool) -> bool:
        """Whether the draft model should read what it lacks of one sequence, whatever is known of it: to see what it is
        worth. `begun`: it has read a part already.
        """
        return self.stake >= _PURSE and self.advance >= (-_DEAREST_TRY if begun else 0.0)

    def reads(self, text: Chances, now: Chances, then: Chances, most: int, behind: int, left: float) -> bool:
        """Whether it should read `behind` tokens, so that the chances of its guesses are no longer `now` but `then`.

        `left`: tokens that those answers go on for, at most. Only what it has won before can be spent so.
        """
        cost = self._cost(len(text), behind)
        if self._reading is None or self.stake < 0.0 or self.advance < min(cost, _PROVEN):
            return False
        before, after = (self._rate(text, draft, most) for draft in (now, then))
        return min(left, _USUAL_REST) * (1.0 / before - 1.0 / after) > cost

    def _cost(self, sequences: int, tokens: int) -> float:
        """Decodes that the draft model's reading of `tokens` takes; 0: nobody knows yet."""
        return tokens * self._reading.usual / self._plain[sequences].usual if self._reading is not None else 0.0

    def _rate(self, text: Chances, draft: Chances, most: int) -> float:
        rates = (self._best(side, most) for side in self._sides(text, draft))
        return max(rate if depth else 1.0 for rate, depth in rates)

    def _slope(self, sequences: int, depth: int) -> float:
        known = self._slopes.get((sequences, depth))
        if known is not None:
            return known.usual
        return min((slope.usual for (n, _), slope in self._slopes.items() if n == sequences), default=_SLOPE)

    def _drafting(self, sequences: int, drafted: int) -> float:
        """Decodes that one of the draft model for `drafted` of the `sequences` takes."""
        known = self._drafts.get(drafted)
        if known is None:
            nearest = min(self._drafts, key=lambda n: abs(n - drafted), default=None)
            if nearest is None:
                return self.share
            known = self._drafts[nearest]
        return known.usual / self._plain[sequences].usual

    def plain(self, sequences: int, seconds: float) -> None:
        """A decode of one token for each of `sequences` took `seconds`."""
        self._row = 0
        known = self._plain.get(sequences)
        if known is None:
            self._plain[sequences] = Recent(seconds, _LAST)
        else:
            known.add(seconds)
        self._earn()

    def drafted(self, sequences: int, drafted: int, decodes: int, seconds: float) -> None:
        """The draft model took `seconds` for `decodes` decodes for `drafted` of the `sequences`."""
        plain = self._plain[sequences].usual
        known = self._drafts.setdefault(drafted, Recent(self.share * plain, _LAST))
        known.add(seconds / decodes)
        self._stake(-known.usual * decodes / plain)

    def read(self, sequences: int, tokens: int, seconds: float) -> None:
        """The draft model took `seconds` to read `tokens`, while `sequences` waited."""
        if self._reading is None:
            self._reading = Recent(seconds / tokens, _LAST)
        else:
            self._reading.add(seconds / tokens)
        self.advance -= self._cost(sequences, tokens)

    def guessed(self, sequences: int, depth: int, text: Tally, draft: Tally, seconds: float) -> None:
        """A decode with guesses of up to `depth` took `seconds`."""
        self._row += 1
        rows = (text.rows + draft.rows) / sequences
        if rows:
            slope = max(0.0, seconds / self._plain[sequences].usual - 1.0) / rows
            known = self._slopes.get((sequences, depth))
            if known is None:
                self._slopes[sequences, depth] = Recent(slope, _LAST)
            else:
                known.add(slope)
        # What such a decode usually takes: this one's time may tell of other programs.
        usual = self._slope(sequences, depth) / sequences
        self._earn()
        self.purse = min(self.purse + text.held / sequences - usual * text.rows, _PURSE)
        self._stake(draft.held / sequences - usual * draft.rows)

    def _earn(self) -> None:
        self.purse = min(self.purse + _SPARED, _PURSE)
        self.stake = min(self.stake + _SPARED_DRAFT, _PURSE)
        self.advance = min(self.advance + _SPARED_DRAFT, max(_PURSE, self.advance))

    def _stake(self, decodes: float) -> None:
        self.stake = min(self.stake + decodes, _PURSE)
        self.advance = min(self.advance + decodes, _SAVED)


@dataclass(frozen=True, slots=True)
class _Side:
    """One way to guess: the chances of each sequence's guess, and whether the draft model makes it."""

    chances: Chances
    draft: Sequence[bool]

    @property
    def text(self) -> list[bool]:
        return [chance is not None and not by for chance, by in zip(self.chances, self.draft, strict=True)]

    def choice(self, depth: int) -> Choice:
        return Choice(depth, tuple(self.text), tuple(self.draft))


class Always:
    """Guesses wherever anything speaks for it, whatever that costs."""

    def most(self, sequences: int) -> int:
        return min(deepest(sequences), DEPTHS[1])

    def choose(self, text: Chances, draft: Chances, most: int) -> Choice:
        better = [one is not None and (other is None or one > other) for one, other in zip(draft, text, strict=True)]
        found = [other is not None and not by for other, by in zip(text, better, strict=True)]
        return Choice(most, tuple(found), tuple(better)) if any(found) or any(better) else NOTHING

    def tries(self, begun: bool) -> bool:
        return True

    def reads(self, text: Chances, now: Chances, then: Chances, most: int, behind: int, left: float) -> bool:
        return True

    def plain(self, sequences: int, seconds: float) -> None:
        return

    def drafted(self, sequences: int, drafted: int, decodes: int, seconds: float) -> None:
        return

    def read(self, sequences: int, tokens: int, seconds: float) -> None:
        return

    def guessed(self, sequences: int, depth: int, text: Tally, draft: Tally, seconds: float) -> None:
        return


@cache
def deepest(sequences: int) -> int:
    """The longest guess for each of so many sequences that has room in one decode."""
    return max((depth for depth in DEPTHS if depth * sequences <= ROWS), default=0)
