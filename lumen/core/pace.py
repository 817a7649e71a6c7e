"""Whether a target meets a wanted time to the first token. Pure: now is an argument, times are seconds.

| the last first tokens | a route that wants them within its objective |
| --- | --- |
| fewer than 5 are known | asks it |
| half or more of the last 16 came within it, or all of the last 3 | asks it |
| else | leaves it out of its plans, but for a try now and then |

A try is one request at a time: right after a first token that came in time, so that a target that is well again is
back after three; else one request in 20 and 5 s after the last first token at the earliest; and, however few requests
there are, once nothing was heard of it for two minutes.

The median: what a target usually does is what it can do. The tail of it is the business of hedging. Of the last 16,
because a histogram of the last half hour would forget a bad minute only after as many good ones.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from statistics import median_low
from typing import Any

RECENT = 16
ENOUGH = 5
IN_A_ROW = 3
ONE_IN = 20
PAUSE = 5.0
STALE = 120.0
# How long a request that was begun is waited for before the next may try.
PENDING = 5.0


class Pace:
    """The last first tokens of one target. `at`: epoch seconds of the newest."""

    __slots__ = ("_last", "_skipped", "_usual", "at")

    def __init__(self, seconds: Iterable[float] = (), at: float = 0.0) -> None:
        self._last = deque(seconds, RECENT)
        self._usual: float | None = None
        # Plans it was left out of since the last first token.
        self._skipped = 0
        self.at = at

    def add(self, seconds: float, now: float) -> None:
        """A first token came after so long."""
        self._last.append(seconds)
        self._usual = None
        self._skipped = 0
        self.at = now

    def usual(self) -> float | None:
        """The median of the last 16; `None` before 5 are known."""
        if self._usual is None and len(self._last) >= ENOUGH:
            self._usual = median_low(self._last)
        return self._usual

    def misses(self, objective: float) -> bool:
        """Whether it cannot be expected to give a first token within `objective`."""
        usual = self.usual()
        if usual is None or usual <= objective:
            return False
        last = self._last
        return any(last[-place] > objective for place in range(1, IN_A_ROW + 1))

    def admits(self, objective: float, now: float, begun: float) -> bool:
        """Whether a request with this objective may be sent to it. One that may not is counted.

        `begun`: when a request to it last began.
        """
        if not self.misses(objective):
            return True
        if begun > self.at and 0.0 <= now - begun < PENDING:
            return False
        quiet = now - self.at
        if self._last[-1] <= objective or not 0.0 <= quiet < STALE:
            return True
        if self._skipped >= ONE_IN - 1 and quiet >= PAUSE:
            return True
        self._skipped += 1
        return False

    def dump(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"last": list(self._last), "at": self.at}

    @classmethod
    def load(cls, kept: Mapping[str, Any]) -> Pace:
        """What `dump` gave.

        Raises:
            ValueError: it is not from `dump`.
        """
        try:
            made = cls([float(seconds) for seconds in kept["last"]], float(kept["at"]))
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError(f"not a pace: {error}") from None
        if not all(math.isfinite(number) and number >= 0.0 for number in (*made._last, made.at)):
            raise ValueError("not a pace: out of range")
        return made
