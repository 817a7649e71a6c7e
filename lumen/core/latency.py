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

from lumen.core.pace import Pace

_PER_OCTAVE = 8
_LOWEST = -12  # 2**-12 s, a quarter of a millisecond
_BUCKETS = 24 * _PER_OCTAVE  # up to 2**12 s, over an hour
_SHIFT = -_LOWEST * _PER_OCTAVE
_SHORTEST = 2.0**_LOWEST
_HALF_LIFE = 1800.0
_FADE_EVERY = 120.0
_HEAVIEST = 4096.0
# Samples are counted in batches of so many, by how much is known already: up to this weight, batch, and one in how many
# stands for the others. Which one moves on from batch to batch, so that no rhythm of the samples hides some of them.
_BATCHES = ((64.0, 8, 1), (512.0, 16, 1), (math.inf, 64, 4))

ENOUGH = 8
ENOUGH_TO_HEDGE = 20
ENOUGH_TO_BE_SLOW = 64
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

    __slots__ = ("_batch", "_counts", "_faded", "_pending", "_quantiles", "_stride", "version", "weight")

    def __init__(self, now: float) -> None:
        self._counts = [0.0] * _BUCKETS
        self._faded = now
        # Not counted yet: a batch at once costs a third of one at a time.
        self._pending: list[float] = []
        _, self._batch, self._stride = _BATCHES[0]
        self._quantiles: tuple[float, float, float] | None = (0.0, 0.0, 0.0)
        self.weight = 0.0
        self.version = 0

    def add(self, seconds: float, now: float) -> bool:
        """Take in one time. Whether that was the last of a batch, so that the quantiles are new."""
        self._pending.append(seconds)
        if len(self._pending) < self._batch:
            return False
        self._count(now)
        return True

    def quantiles(self) -> tuple[float, float, float]:
        """The 50th, 95th and 99th percentile as of the last batch; zeros before the first."""
        found = self._quantiles
        if found is None:
            sums = list(accumulate(self._counts))
            found = self._quantiles = (self._at(sums, 0.50), self._at(sums, 0.95), self._at(sums, 0.99))
        return found

    def _count(self, now: float) -> None:
        if not 0.0 <= now - self._faded < _FADE_EVERY or self.weight >= _HEAVIEST:
            self._fade(now)
        counts, log2, stride = self._counts, math.log2, self._stride
        for seconds in self._pending[self.version % stride :: stride]:
            place = int(log2(seconds) * _PER_OCTAVE + _SHIFT) if seconds > _SHORTEST else 0
            counts[place if place < _BUCKETS else _BUCKETS - 1] += stride
        self.weight += len(self._pending)
        self._pending.clear()
        self._renew()

    def _renew(self) -> None:
        self._quantiles = None
        self.version += 1
        self._batch, self._stride = next((batch, stride) for weight, batch, stride in _BATCHES if self.weight < weight)

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
        """JSON-ready: the counts without the zeros around them, those of a batch not full yet left out."""
        counts = self._counts
        first = next((place for place, count in enumerate(counts) if count), 0)
        last = next((place for place in range(_BUCKETS - 1, -1, -1) if counts[place]), -1)
        return {"at": self._faded, "from": first, "counts": counts[first : last + 1]}

    @classmethod
    def load(cls, kept: Mapping[str, Any], now: float) -> Histogram:
        """What `dump` gave, faded by the time since.

        Raises:
            ValueError: it is not from `dump`.
        """
        try:
            made = cls(float(kept["at"]))
            for place, count in enumerate(kept["counts"], kept["from"]):
                if not 0 <= place < _BUCKETS or not 0.0 <= count <= 2 * _HEAVIEST:
                    raise ValueError("not a histogram: out of range")
                made._counts[place] = float(count)
        except (KeyError, TypeError, IndexError, OverflowError) as error:
            raise ValueError(f"not a histogram: {error}") from None
        if not math.isfinite(made._faded):
            raise ValueError("not a histogram: no time")
        made._fade(now)
        made._renew()
        return made


class Latency:
    """One target's history: time to first token, largest gap of a stream, time per token; and its prompts' size."""

    __slots__ = ("_baseline", "first", "gap", "pace", "per_token", "size", "slow_from")

    def __init__(self, now: float) -> None:
        self.first = Histogram(now)
        self.gap = Histogram(now)
        self.per_token = Histogram(now)
        # The last first tokens, those of long prompts as if they had been usual ones.
        self.pace = Pace()
        # The usual size of a request in bytes, a moving mean; 0: not known.
        self.size = 0.0
        # The 95th percentile as of the last batch, and from when on a first token is slow: by that of the batch
        # before, so that a target that just turned slow is not measured against its own slowness.
        self._baseline = 0.0
        self.slow_from = math.inf

    def first_token(self, seconds: float, now: float, size: int = 0) -> bool:
        """Take in one time to first token of a request of `size` bytes. Whether it was slow for this target."""
        usual = self.size
        if size:
            self.size = usual + (size - usual) * 0.0625 if usual else float(size)
        if self.first.add(seconds, now):
            self._shift()
        longer = stretch(size, usual)
        self.pace.add(seconds / longer, now)
        return seconds >= self.slow_from * longer

    def _shift(self) -> None:
        if self._baseline:
            self.slow_from = max(SLOW * self._baseline, SLOW_FLOOR)
        if self.first.weight >= ENOUGH_TO_BE_SLOW:
            self._baseline = self.first.quantiles()[1]

    def gave_up(self, seconds: float, now: float) -> None:
        """A first token that had not come after `seconds`: counted, so that a limit cannot lock itself in."""
        self.pace.add(seconds, now)
        if self.first.add(min(seconds, LONGEST_GUESS), now):
            self._shift()

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
            "pace": self.pace.dump(),
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
            if "pace" in kept:
                # A file of an earlier version has none.
                made.pace = Pace.load(kept["pace"])
            made._shift()
            made._shift()
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
