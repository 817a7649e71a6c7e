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
_ENOUGH = 20
FLOOR = 256
UNKNOWN = 4096


class Lengths:
    """Output tokens of one route's answers, in bounded memory."""

    __slots__ = ("_counts", "_total")

    def __init__(self) -> None:
        self._counts = [0] * len(_EDGES)
        self._total = 0

    def add(self, tokens: int) -> None:
        """Take in one answer."""
        self._counts[min(bisect_left(_EDGES, tokens), len(_EDGES) - 1)] += 1
        self._total += 1
        if self._total > _MEMORY:
            self._counts = [count // 2 for count in self._counts]
            self._total = sum(self._counts)

    def bound(self, most: int | None = None) -> int:
        """The `max_tokens` of a request that gives none: at least 256, at most `most`; 4,096 while little is known."""
        bound = UNKNOWN if self._total < _ENOUGH else max(-(-self._percentile(99) * 5 // 4), FLOOR)
        return bound if most is None else min(bound, most)

    def _percentile(self, share: int) -> int:
        needed = -(-self._total * share // 100)
        seen = 0
        for edge, count in zip(_EDGES, self._counts, strict=True):
            seen += count
            if seen >= needed:
                return edge
        return _EDGES[-1]
