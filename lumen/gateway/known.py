"""Everything known of one target: its breaker, its latency history, and the limits that the history makes.

Times inside are epoch seconds, see `gateway/health.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lumen.config.schema import Timeouts
from lumen.core.breaker import Breaker, State
from lumen.core.latency import Histogram, Latency, limits, stretch
from lumen.gateway.upstream import Limits


class Known:
    """One target."""

    __slots__ = (
        "_made", "_made_alone", "_made_at", "_made_of", "_made_over",
        "before", "begun", "breaker", "in_flight", "latency", "name", "used",
    )  # fmt: skip

    def __init__(self, name: str, breaker: Breaker, latency: Latency, now: float) -> None:
        self.name = name
        self.breaker = breaker
        self.latency = latency
        self.in_flight = 0
        # Attempts begun in the current and in the last window.
        self.begun = 0
        self.before = 0
        self.used = now
        # The limits made last, and what from: the route's own over its defaults, at this version of the history.
        self._made: Limits | None = None
        self._made_of: Timeouts | None = None
        self._made_over: Limits | None = None
        self._made_at = 0
        self._made_alone = False

    def limits(self, size: int, base: Limits, own: Timeouts, *, alone: bool = False, local: bool = False) -> Limits:
        """The limits of an attempt with `size` bytes: `base`, as the history has it where the route sets none.

        `alone`: the first token has at least the time of `base`, since nobody else would be asked for it; at a `local`
        model, which answers once it is a request's turn, the wait for that comes on top, and it is waited for as long
        as its start may take. Where another target could
        answer, half of that wait is enough: the last places in line are for those that have nobody else.
        """
        latency = self.latency
        version = latency.first.version + latency.gap.version
        usual = stretch(size, latency.size) == 1.0
        made_for = usual and self._made_of is own and self._made_over is base and self._made_alone is alone
        if made_for and self._made_at == version:
            assert self._made is not None
            return self._made
        first, gap = limits(
            latency,
            (own.first_token, own.gap),
            (base.first_token, base.gap),
            total=base.total,
            size=size,
        )
        if alone:
            first = max(first, base.first_token)
        # Many targets send their headers with the first token.
        longer = own.headers is None and first > base.first_token
        headers = first if longer else min(base.headers, first) if own.headers is None else base.headers
        if alone and local and own.headers is None and own.first_token is None:
            headers += base.queue
        queue = base.queue / 2 if local and not alone else base.queue
        ready = base.alone if alone else base.ready
        made = replace(base, headers=headers, first_token=first, gap=gap, queue=queue, ready=ready)
        if usual:
            self._made, self._made_of, self._made_over, self._made_at = made, own, base, version
            self._made_alone = alone
        return made

    def until(self) -> float:
        """When it is due again, epoch seconds; infinite where only an operator ends it."""
        return math.inf if self.breaker.state is State.DRAINED else self.breaker.until

    def shown(self, now: float, share: float) -> dict[str, Any]:
        """JSON-ready: milliseconds, epoch seconds, shares in [0, 1]. `share`: its part of the traffic."""
        until = self.until()
        return {
            "name": self.name,
            "state": self.breaker.state.value,
            "since": round(self.breaker.since, 3),
            "until": None if math.isinf(until) else round(until, 3),
            "why": self.breaker.why,
            "in_flight": self.in_flight,
            "share": round(share, 4),
            "error_rate": round(self.breaker.error_rate(now), 4),
            "first_token_ms": _percentiles(self.latency.first),
            "usual_first_token_ms": _milli(self.latency.pace.usual()),
            "gap_ms": _percentiles(self.latency.gap),
            "per_token_ms": _percentiles(self.latency.per_token),
        }

    def dump(self) -> dict[str, Any]:
        """What a restart must know, JSON-ready."""
        return {"used": self.used, "breaker": self.breaker.dump(), "latency": self.latency.dump()}

    @classmethod
    def load(cls, name: str, kept: Mapping[str, Any], now: float) -> Known:
        """From what `dump` gave.

        Raises:
            KeyError, TypeError, AttributeError, ValueError: it is not from `dump`.
        """
        breaker, latency = Breaker.load(kept["breaker"], now), Latency.load(kept["latency"], now)
        return cls(name, breaker, latency, min(float(kept["used"]), now))


def _milli(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 2)


def _percentiles(histogram: Histogram) -> Mapping[str, float] | None:
    if not histogram.weight:
        return None
    p50, p95, p99 = histogram.quantiles()
    return {"p50": round(p50 * 1000, 2), "p95": round(p95 * 1000, 2), "p99": round(p99 * 1000, 2)}
