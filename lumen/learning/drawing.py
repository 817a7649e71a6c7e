"""Which requests are looked at again: chance is an argument, and the chance that each had is told. Pure.

Where a scorer tells the loss that a request is expected to have, every band of it is labelled equally often, because
labels of the many easy requests teach nothing new. The chance of each request depends on the requests before it alone,
so weighting a label by one over its chance gives sums that are true for all of the traffic.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

# Bands of expected loss: below nothing, and up to each of these.
EDGES = (0.0, 0.05, 0.1, 0.2)
# No band is drawn more, or less, often than the share by more than this factor.
SPREAD = 4.0


@dataclass(slots=True)
class Strata:
    """How many requests of each band were seen."""

    seen: list[int] = field(default_factory=lambda: [0] * (len(EDGES) + 1))

    def chance(self, loss: float, share: float) -> float:
        """The chance that a request of this expected loss is drawn, so that all in all `share` of them are. Counts it.

        In [share / SPREAD, share * SPREAD] and at most 1; over all bands together about `share`.
        """
        band = bisect_right(EDGES, loss)
        total = sum(self.seen)
        wanted = [self._wanted(count, total, share) for count in self.seen]
        drawn = sum(w * count for w, count in zip(wanted, self.seen, strict=True)) / total if total else share
        self.seen[band] += 1
        chance = wanted[band] * share / drawn if drawn > 0 else share
        return min(max(chance, share / SPREAD), first(share))

    def _wanted(self, count: int, total: int, share: float) -> float:
        if not count:
            return first(share)
        met = sum(one > 0 for one in self.seen)
        return min(max(share * total / (met * count), share / SPREAD), first(share))


def first(share: float) -> float:
    """The chance of the first of two draws, which comes before anything is scored."""
    return min(share * SPREAD, 1.0)
