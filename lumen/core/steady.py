"""A clock that money can be counted by, whatever the machine's own does. Pure: both clocks are arguments.

Where the machine's clock was set back, this one goes on at half its pace until it is caught up with: no window of a
budget is entered twice and none is refilled early, however large the step. It may be a mistake that is corrected in
a moment, so what costs money is refused meanwhile, until this clock is caught up with but for `TOLERANCE`, or for
`SETTLED` at most: from then on the step is taken for what it is, and only the pace still tells of it.
"""

from __future__ import annotations

# Microseconds. What is set by less than this, all such steps together, is borne without a word: time servers do that.
TOLERANCE = 5_000_000
SETTLED = 60_000_000


class Steady:
    """Microseconds since 1970 that never go back, from a clock that may and one that may not."""

    __slots__ = ("_behind", "_known", "_mono", "_now", "_stepped")

    def __init__(self, wall: int, mono: int, latest: int = 0) -> None:
        """`latest`: the latest time that is known to have been used."""
        self._now = max(wall, latest)
        self._mono = mono
        # How far the machine's clock is behind this one, how far it is known to be, and when it last fell further.
        self._behind = self._known = 0
        self._stepped = mono
        self._fell(wall, mono)

    def now(self, wall: int, mono: int) -> int:
        passed = max(mono - self._mono, 0)
        if wall >= self._now + passed // 2:
            self._now, self._mono = max(wall, self._now), max(mono, self._mono)
        elif passed > 1:
            self._now, self._mono = self._now + passed // 2, mono
        if wall < self._now or self._behind:
            self._fell(wall, mono)
        return self._now

    def unsettled(self, mono: int) -> int:
        """For how many microseconds longer what costs money is refused; 0: it is not. As of the last `now`."""
        if self._behind <= TOLERANCE:
            return 0
        return max(self._stepped + SETTLED - mono, 0)

    def _fell(self, wall: int, mono: int) -> None:
        self._behind = self._now - wall
        if self._behind > self._known + TOLERANCE:
            self._known, self._stepped = self._behind, mono
        else:
            self._known = min(self._known, self._behind)
