"""Counts of observations by size, cumulative when they are read. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
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

    def extend(self, values: list[float]) -> None:
        """Add many, which it sorts: past a few, one look at each bucket is faster than one at each of them."""
        if len(values) < len(self.counts):
            for value in values:
                self.add(value)
            return
        values.sort()
        before = 0
        for at, bound in enumerate(self.bounds):
            upto = bisect_right(values, bound)
            self.counts[at] += upto - before
            before = upto
        self.counts[-1] += len(values) - before
        self.sum += sum(values)

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
