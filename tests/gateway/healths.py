"""What the tests of health share: a clock that they move, errors of targets, and targets in a state."""

from __future__ import annotations

from lumen.config.schema import Timeouts
from lumen.core.breaker import IN_A_ROW
from lumen.core.errors import BrokenError, LumenError, RefusedError, Retry
from lumen.gateway.failovers import Failover
from lumen.gateway.health import Health, Pass
from lumen.gateway.upstream import Limits

EPOCH = 1_700_000_000.0
BROKE = BrokenError("The connection to the target broke.", phase="stream")
ASKED = RefusedError("secret sk-123", phase="headers", upstream_status=429, retry_after=60.0)
NEVER = RefusedError("", phase="headers", upstream_status=400, retry=Retry.NEVER)
BASE = Limits(connect=5.0, headers=60.0, first_token=60.0, gap=30.0, total=900.0)
UNSET = Timeouts()


class Clock:
    """Loop time that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def made(clock: Clock) -> Health:
    return Health(lambda: 0.0, clock(), EPOCH + clock())


def taken(health: Health, name: str, now: float, *, force: bool = False) -> Pass:
    given = health.begin(name, now, force=force)
    assert given is not None
    return given


def attempt(health: Health, name: str, now: float, error: LumenError | None = None, *, force: bool = False) -> None:
    health.ended(taken(health, name, now, force=force), now, error is None, error=error)


def break_down(health: Health, name: str, now: float) -> None:
    passes = [taken(health, name, now, force=True) for _ in range(IN_A_ROW)]
    for given in passes:
        health.ended(given, now, False, error=BROKE)


def state(health: Health, name: str, now: float) -> str:
    return next(str(one["state"]) for one in health.snapshot(now) if one["name"] == name)


def learned(health: Health, clock: Clock, ttft: float, gap: float, size: int = 1000) -> Pass:
    for _ in range(200):
        given = health.begin("a", clock(), size)
        assert given is not None
        health.serving(given, clock(), ttft)
        health.ended(given, clock(), True, max_gap=gap, per_token=gap)
    given = health.begin("a", clock(), size)
    assert given is not None
    return given


def limits(given: Pass, base: Limits, own: Timeouts, *, alone: bool = False, local: bool = False) -> Limits:
    """Those of this attempt, as an attempt asks for them."""
    return given.target.limits(given.size, base, own, alone=alone, local=local)


def failover(number: int) -> Failover:
    return Failover(f"req_{number}", EPOCH, "a", "b", "upstream_disconnected", "prefill", 7, 12.5, "a seam")
