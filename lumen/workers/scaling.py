"""How many replicas a model needs for its load, PURE: up on the time requests wait, down when fewer would do.

Both only after it has been so for a while, down later than up, and one at a time: a burst shorter than a start is
cheaper waited out, and what was just started is not sent away at the first quiet moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

UP_WAIT = 0.5
"""Seconds that a request would wait for a slot beyond which another replica is worth its start."""

UP_AFTER = 1.0
"""Seconds that it must have been so."""

DOWN_SHARE = 0.6
"""The load must fit into this share of the slots of one replica fewer."""

DOWN_AFTER = 15.0
"""Seconds that it must have been so."""

USUAL_SLOTS = 16
"""Taken for an engine that does not tell how many answers it gives at once."""


@dataclass(frozen=True, slots=True)
class Load:
    """One model now. `in_flight`: requests on its replicas and waiting for one. `ready`, `coming`: replicas that
    serve, and that start. `slots`: of one replica. `releases`: times at which the last requests ended, in order."""

    in_flight: int
    ready: int
    coming: int
    slots: int
    releases: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Trend:
    """Since when there have been too few, or too many; `None`: that is not so."""

    short: float | None = None
    ample: float | None = None


def wait(load: Load, now: float) -> float:
    """Seconds a request that comes now would wait for a slot, by the pace at which requests ended lately."""
    ahead = load.in_flight - load.ready * (load.slots or USUAL_SLOTS)
    if ahead < 0 or not load.ready:
        return 0.0
    lately = [time for time in load.releases if now - time < 10 * UP_AFTER]
    if len(lately) < 2 or now <= lately[0]:
        # Nothing has ended lately: whoever waits does so for an answer of unknown length.
        return float("inf") if ahead > 0 else 0.0
    return ahead * (now - lately[0]) / len(lately)


def scale(trend: Trend, load: Load, low: int, high: int, now: float) -> tuple[Trend, int]:
    """What has changed, and one replica more (1), one fewer (-1), or none (0)."""
    there = load.ready + load.coming
    short = load.ready > 0 and not load.coming and there < high and wait(load, now) > UP_WAIT
    room = DOWN_SHARE * (load.slots or USUAL_SLOTS) * (load.ready - 1)
    ample = not load.coming and load.ready > low and load.in_flight <= room
    trend = replace(
        trend,
        short=(now if trend.short is None else trend.short) if short else None,
        ample=(now if trend.ample is None else trend.ample) if ample else None,
    )
    if trend.short is not None and now - trend.short >= UP_AFTER:
        return Trend(), 1
    if trend.ample is not None and now - trend.ample >= DOWN_AFTER:
        return Trend(), -1
    return trend, 0


def look_again(trend: Trend, now: float) -> float | None:
    """When the trend will have lasted long enough, or `None` where there is none."""
    due = [since + after for since, after in ((trend.short, UP_AFTER), (trend.ample, DOWN_AFTER)) if since is not None]
    return max(min(due), now) if due else None
