"""Counts of observations by size, cumulative when they are read. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence


class Histogram:
    """`bounds`: upper ends of the buckets, rising, each including its end; the last bucket has none."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        return sum(self.counts)

    def cumulative(self) -> list[tuple[float, int]]:
        """Each bound with how many observations were no larger; the last bound is infinity."""
        found, total = [], 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            total += count
            found.append((bound, total))
        return found

    def quantile(self, share: float) -> float | None:
        """The value below which `share` of the observations lie, straight lines within a bucket; `None` without any.

        What lies beyond the last bound is taken to be at it.
        """
        total = self.count
        if not total:
            return None
        rank, before, low = share * total, 0, 0.0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            if count and before + count >= rank:
                return low + (bound - low) * (rank - before) / count
            before, low = before + count, bound
        return self.bounds[-1]
