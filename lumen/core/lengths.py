"""How long answers have been, so that an unset `max_tokens` need not be held at a model's maximum. Pure.

The bound of a route is its 99th percentile × 1.25. An answer cut at the bound counts with its cut length, so a route
whose answers grow reaches the bound with more than one in a hundred and raises it: the bound cannot lock itself in.
"""

from __future__ import annotations

from bisect import bisect_left

# Bucket edges a quarter octave apart: a percentile is over-estimated by at most 19 %, in 97 counters.
_EDGES = tuple(round(2 ** (i / 4)) for i in range(97))
# Halved beyond this, so that what a route does now outweighs what it once did.
_MEMORY = 2048
_SHARE = 99
_ENOUGH = 20
FLOOR = 256
UNKNOWN = 4096


class Lengths:
    """Output tokens of one route's answers, in bounded memory. Its bound is asked for more often than it moves."""

    __slots__ = ("_at", "_below", "_counts", "_total")

    def __init__(self) -> None:
        self._counts = [0] * len(_EDGES)
        self._total = 0
        # The bucket of the 99th percentile, and how many are in it and those before.
        self._at = self._below = 0

    def add(self, tokens: int) -> None:
        """Take in one answer."""
        bucket = min(bisect_left(_EDGES, tokens), len(_EDGES) - 1)
        counts = self._counts
        counts[bucket] += 1
        self._total += 1
        self._below += bucket <= self._at
        if self._total > _MEMORY:
            self._counts = counts = [count // 2 for count in counts]
            self._total, self._at, self._below = sum(counts), 0, counts[0]
        needed = -(-self._total * _SHARE // 100)
        while self._below < needed:
            self._at += 1
            self._below += counts[self._at]
        while self._below - counts[self._at] >= needed:
            self._below -= counts[self._at]
            self._at -= 1

    def bound(self, most: int | None = None) -> int:
        """The `max_tokens` of a request that gives none: at least 256, at most `most`; 4,096 while little is known."""
        bound = UNKNOWN if self._total < _ENOUGH else max(-(-_EDGES[self._at] * 5 // 4), FLOOR)
        return bound if most is None else min(bound, most)
