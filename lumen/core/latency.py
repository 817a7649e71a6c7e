"""How fast a target has been, and what that allows to expect of it. Pure: now is an argument, times are seconds.

Each quantity is a histogram with logarithmic buckets, an eighth of an octave wide (9 %, interpolated within), whose
counts fade: by half in half an hour, and by half whenever 4,096 samples weigh in. Old weather is forgotten, and a
change that stays becomes the climate.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

_PER_OCTAVE = 8
_LOWEST = -12  # 2**-12 s, a quarter of a millisecond
_BUCKETS = 24 * _PER_OCTAVE  # up to 2**12 s, over an hour
_SHIFT = -_LOWEST * _PER_OCTAVE
_SHORTEST = 2.0**_LOWEST
_HALF_LIFE = 1800.0
_FADE_EVERY = 120.0
_HEAVIEST = 4096.0
# Quantiles are computed anew after this many samples, or after each one while there are few.
_EVERY = 16
_FEW = 64
_BASELINE_EVERY = 20

ENOUGH = 8
ENOUGH_TO_HEDGE = 20
ENOUGH_FOR_LONG = 100
SHORTEST_LIMIT = 5.0
# Slow is this many times the 95th percentile, and never less than a second.
SLOW = 5.0
SLOW_FLOOR = 1.0
# A first token given up on counts as one that came then, but never as more than this.
LONGEST_GUESS = 30.0
# A prompt this many times its target's usual size may take longer in proportion.
LONG_PROMPT = 2.0


class Histogram:
    """Times in bounded memory. `version` changes whenever the quantiles do."""

    __slots__ = ("_counts", "_faded", "_fresh", "_quantiles", "version", "weight")

    def __init__(self, now: float) -> None:
        self._counts = [0.0] * _BUCKETS
        self._faded = now
        self._fresh = 0
        self._quantiles: tuple[float, float, float] = (0.0, 0.0, 0.0)
        self.weight = 0.0
        self.version = 0

    def add(self, seconds: float, now: float) -> None:
        """Take in one time."""
        if not 0.0 <= now - self._faded < _FADE_EVERY or self.weight >= _HEAVIEST:
            self._fade(now)
        place = int(math.log2(seconds) * _PER_OCTAVE + _SHIFT) if seconds > _SHORTEST else 0
        self._counts[place if place < _BUCKETS else _BUCKETS - 1] += 1.0
        self.weight += 1.0
        self._fresh += 1

    def quantiles(self) -> tuple[float, float, float]:
        """The 50th, 95th and 99th percentile, zeros while there is nothing; up to 16 samples old."""
        if self._fresh >= _EVERY or (self._fresh and self.weight < _FEW):
            self._fresh = 0
            self.version += 1
            sums = list(accumulate(self._counts))
            self._quantiles = (self._at(sums, 0.50), self._at(sums, 0.95), self._at(sums, 0.99))
        return self._quantiles

    def _at(self, sums: list[float], share: float) -> float:
        wanted = sums[-1] * share
        place = min(bisect_left(sums, wanted), _BUCKETS - 1)
        below = sums[place] - self._counts[place]
        within = (wanted - below) / self._counts[place] if self._counts[place] else 0.0
        return float(2.0 ** ((place + within - _SHIFT) / _PER_OCTAVE))

    def _fade(self, now: float) -> None:
        passed = now - self._faded
        factor = 0.5 ** (passed / _HALF_LIFE) if passed > 0.0 else 1.0
        if self.weight >= _HEAVIEST:
            factor *= 0.5
        self._faded = now
        # What has all but faded away goes, so that a count is exactly nothing again.
        self._counts = [count * factor if count * factor > 0.001 else 0.0 for count in self._counts]
        self.weight = sum(self._counts)

    def dump(self) -> dict[str, Any]:
        """JSON-ready, only what is there."""
        counts = [[place, round(count, 3)] for place, count in enumerate(self._counts) if count]
        return {"at": self._faded, "counts": counts}

    @classmethod
    def load(cls, kept: Mapping[str, Any], now: float) -> Histogram:
        """What `dump` gave, faded by the time since.

        Raises:
            ValueError: it is not from `dump`.
        """
        try:
            made = cls(float(kept["at"]))
            for place, count in kept["counts"]:
                if not 0 <= place < _BUCKETS or not 0.0 <= count <= 2 * _HEAVIEST:
                    raise ValueError("not a histogram: out of range")
                made._counts[place] = float(count)
        except (KeyError, TypeError, IndexError, OverflowError) as error:
            raise ValueError(f"not a histogram: {error}") from None
        if not math.isfinite(made._faded):
            raise ValueError("not a histogram: no time")
        made.weight = sum(made._counts)
        made._fade(now)
        made._fresh = _EVERY
        return made


class Latency:
    """One target's history: time to first token, largest gap of a stream, time per token; and its prompts' size."""

    __slots__ = ("_baseline", "_next", "_until_next", "first", "gap", "per_token", "size")

    def __init__(self, now: float) -> None:
        self.first = Histogram(now)
        self.gap = Histogram(now)
        self.per_token = Histogram(now)
        # The usual size of a request in bytes, a moving mean; 0: not known.
        self.size = 0.0
        # What slow is measured against: the 95th percentile as it was 20 to 40 samples ago, so that a target that
        # just turned slow is not measured against its own slowness. 0: not known.
        self._baseline = 0.0
        self._next = 0.0
        self._until_next = _BASELINE_EVERY

    def first_token(self, seconds: float, now: float, size: int = 0) -> bool:
        """Take in one time to first token of a request of `size` bytes. Whether it was slow for this target."""
        usual = self.size
        if size:
            self.size = usual + (size - usual) * 0.0625 if usual else float(size)
        self.first.add(seconds, now)
        self._until_next -= 1
        if not self._until_next:
            self._until_next = _BASELINE_EVERY
            self._baseline, self._next = self._next, self.first.quantiles()[1]
        baseline = self._baseline
        if seconds < SLOW_FLOOR or not baseline:
            return False
        return seconds >= max(SLOW * baseline, SLOW_FLOOR) * stretch(size, usual)

    def gave_up(self, seconds: float, now: float) -> None:
        """A first token that had not come after `seconds`: counted, so that a limit cannot lock itself in."""
        self.first.add(min(seconds, LONGEST_GUESS), now)

    def hedge_delay(self) -> float | None:
        """Seconds after which a first token is late enough to ask a second target; `None` before 20 samples."""
        return self.first.quantiles()[1] if self.first.weight >= ENOUGH_TO_HEDGE else None

    def dump(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "first": self.first.dump(),
            "gap": self.gap.dump(),
            "per_token": self.per_token.dump(),
            "size": round(self.size),
            "baseline": self._baseline,
        }

    @classmethod
    def load(cls, kept: Mapping[str, Any], now: float) -> Latency:
        """What `dump` gave.

        Raises:
            ValueError: it is not from `dump`.
        """
        made = cls(now)
        try:
            made.first = Histogram.load(kept["first"], now)
            made.gap = Histogram.load(kept["gap"], now)
            made.per_token = Histogram.load(kept["per_token"], now)
            made.size = max(float(kept["size"]), 0.0)
            made._baseline = made._next = max(float(kept["baseline"]), 0.0)
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"not a history: {error}") from None
        return made


def stretch(size: int, usual: float) -> float:
    """How much longer than usual a prompt of `size` bytes may take to its first token: 1, or in proportion."""
    return size / usual if usual and size > LONG_PROMPT * usual else 1.0


def limits(
    history: Latency,
    configured: tuple[float | None, float | None],
    defaults: tuple[float, float],
    *,
    total: float = math.inf,
    size: int = 0,
) -> tuple[float, float]:
    """The limits for the first token and the gap between tokens, in seconds.

    What the route sets is final. Else, after 8 samples:

    - first token: 8 × p99, at least 5 s, at most the default; in proportion longer for a prompt of over twice the
      usual size. Where 2 × p99 of 100 samples are more than the default (a model that thinks first), that, up to
      `total`.
    - gap: 3 × p99, at least 5 s, at most the default.

    Args:
        configured: what the route sets; `None`: nothing. `size`: bytes of the request, 0: not known.
    """
    first, gap = configured
    if first is None:
        first = defaults[0]
        if history.first.weight >= ENOUGH:
            first = _first_token(history, first, total, size)
    if gap is None:
        gap = defaults[1]
        if history.gap.weight >= ENOUGH:
            gap = min(max(3.0 * history.gap.quantiles()[2], SHORTEST_LIMIT), gap)
    return first, gap


def _first_token(history: Latency, default: float, total: float, size: int) -> float:
    p99 = history.first.quantiles()[2]
    if 2.0 * p99 > default and history.first.weight >= ENOUGH_FOR_LONG:
        return min(2.0 * p99, max(total, default))
    return min(max(8.0 * p99, SHORTEST_LIMIT) * stretch(size, history.size), default)
