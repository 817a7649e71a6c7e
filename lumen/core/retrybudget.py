"""How many retries all requests together may make: a fifth of the traffic, and a few in any case. Pure.

A target that fails is asked more often by those who retry, just when it can bear it least. Over the last ten seconds,
retries stay within 20 % of the requests; a reserve of three, filled again in ten seconds, lets a lone request retry.
"""

from __future__ import annotations

# One retry in so many requests.
ONE_IN = 5
WINDOW = 10
RESERVE = 3.0
_REFILL = RESERVE / WINDOW


class RetryBudget:
    """One for the whole gateway. `now`: seconds of any clock; where it steps back, the window starts anew."""

    __slots__ = ("_at", "_filled", "_made", "_requests", "_reserve", "_retries", "_second", "_seen", "refused")

    def __init__(self, now: float) -> None:
        # Requests and retries of each of the last seconds, as rings, and their sums.
        self._seen = [0] * WINDOW
        self._made = [0] * WINDOW
        self._requests = 0
        self._retries = 0
        self._second = int(now)
        self._at = self._second % WINDOW
        self._reserve = RESERVE
        self._filled = now
        # Retries not allowed since the start.
        self.refused = 0

    def request(self, now: float) -> None:
        """A request has come in."""
        if int(now) != self._second:
            self._turn(int(now))
        self._seen[self._at] += 1
        self._requests += 1

    def retry(self, now: float) -> bool:
        """Whether one retry may be made; it is taken if so."""
        if int(now) != self._second:
            self._turn(int(now))
        passed = now - self._filled
        self._reserve = min(self._reserve + max(passed, 0.0) * _REFILL, RESERVE)
        self._filled = now
        if ONE_IN * (self._retries + 1) > self._requests:
            # Rounding must not cost the last whole one.
            if self._reserve < 1.0 - 1e-9:
                self.refused += 1
                return False
            self._reserve -= 1.0
            return True
        self._made[self._at] += 1
        self._retries += 1
        return True

    def left(self, now: float) -> int:
        """How many retries could be made right now, for the operator."""
        if int(now) != self._second:
            self._turn(int(now))
        reserve = min(self._reserve + max(now - self._filled, 0.0) * _REFILL, RESERVE)
        return max(self._requests // ONE_IN - self._retries, 0) + int(reserve + 1e-9)

    def _turn(self, second: int) -> None:
        passed = second - self._second
        if not 0 <= passed < WINDOW:
            passed = WINDOW
        for back in range(passed):
            place = (second - back) % WINDOW
            self._requests -= self._seen[place]
            self._retries -= self._made[place]
            self._seen[place] = self._made[place] = 0
        self._second = second
        self._at = second % WINDOW
        self._filled = min(self._filled, float(second))
