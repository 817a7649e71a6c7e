"""How fast one key may go: requests and tokens a minute, requests at once. Pure: now is an argument, all integers.

A bucket holds one minute's allowance and fills evenly. Tokens are not known before the answer: what is likely is taken
on entry and corrected on leaving, so a bucket may go below zero and then makes later requests wait.
"""

from __future__ import annotations

from dataclasses import dataclass

_MINUTE = 60_000_000  # microseconds


@dataclass(frozen=True, slots=True)
class RateLimits:
    """`rpm`, `tpm`: requests and tokens a minute; `concurrency`: requests under way. `None`: no such limit."""

    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Refused by `limit`; `micros`: when it is worth trying again."""

    limit: str
    micros: int


class Bucket:
    """A minute's allowance that fills evenly. `now`: microseconds that never go back.

    The level is counted in allowance × microseconds, so that no refill is ever rounded.
    """

    __slots__ = ("_at", "_level", "_rate")

    def __init__(self, per_minute: int, now: int) -> None:
        self._rate = per_minute
        self._level = per_minute * _MINUTE
        self._at = now

    def wait(self, count: int, now: int) -> int:
        """Microseconds until `count` can be taken; 0: now. More than a minute's allowance waits for all of it."""
        self._fill(now)
        if not self._rate:
            return _MINUTE
        lacking = min(count, self._rate) * _MINUTE - self._level
        return -(-lacking // self._rate) if lacking > 0 else 0

    def take(self, count: int, now: int) -> None:
        """Take `count`, whatever is there; a negative count gives back."""
        self._fill(now)
        self._level = min(self._level - count * _MINUTE, self._rate * _MINUTE)

    def _fill(self, now: int) -> None:
        passed = max(now - self._at, 0)
        self._level = min(self._level + passed * self._rate, self._rate * _MINUTE)
        self._at = max(now, self._at)


class Gate:
    """The limits of one key, checked together: a refused request takes nothing."""

    __slots__ = ("_requests", "_tokens", "inside", "limits")

    def __init__(self, limits: RateLimits, now: int) -> None:
        self.inside = 0
        self.change(limits, now)

    def change(self, limits: RateLimits, now: int) -> None:
        """Other limits, with full buckets; who is inside stays counted. A limit of 0 lets nobody in."""
        self.limits = limits
        self._requests = None if limits.rpm is None else Bucket(limits.rpm, now)
        self._tokens = None if limits.tpm is None else Bucket(limits.tpm, now)

    def enter(self, tokens: int, now: int) -> Wait | None:
        """Let a request in that will likely use `tokens`; else say what to wait for."""
        limits = self.limits
        if limits.concurrency is not None and self.inside >= limits.concurrency:
            return Wait("concurrency", 1_000_000)
        if self._requests is not None and (micros := self._requests.wait(1, now)):
            return Wait("rpm", micros)
        if self._tokens is not None and (micros := self._tokens.wait(tokens, now)):
            return Wait("tpm", micros)
        self.inside += 1
        if self._requests is not None:
            self._requests.take(1, now)
        if self._tokens is not None:
            self._tokens.take(tokens, now)
        return None

    def leave(self, expected: int, used: int, now: int) -> None:
        """A request that came in with `expected` tokens has ended and used `used`."""
        self.inside -= 1
        if self._tokens is not None:
            self._tokens.take(used - expected, now)
