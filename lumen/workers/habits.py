"""What is remembered of models, PURE: how often they are asked for, at which hours of the week, what a wake costs.

`dump` and `load` make it plain data and back; a reader that knows nothing of a field, or finds nonsense in it, goes on
without it: what is lost here is only learned again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

HOURS = 7 * 24
HOUR = 3600.0
WEEK = HOURS * HOUR

_FADES = 600.0  # seconds in which what is known of the rate of requests fades to a third
_SOON = 60.0  # seconds: how far ahead "asked for again soon" looks
_NEWEST = 0.5  # weight of a new measurement
_WEEKS = 4.0  # weeks in which an hour's history fades to a third
_MODELS = 1024


class Rate:
    """How often one model is asked for: a count that fades."""

    __slots__ = ("_at", "_count")

    def __init__(self) -> None:
        self._count = 0.0
        self._at = -math.inf

    @property
    def last(self) -> float:
        """When it was last asked for; minus infinity: never."""
        return self._at

    def add(self, now: float) -> None:
        self._count = self._count * math.exp((self._at - now) / _FADES) + 1.0
        self._at = now

    def odds(self, now: float) -> float:
        """That it is asked for within the next minute, if requests come at random at the rate of late."""
        return 1.0 - math.exp(-self._count * math.exp((self._at - now) / _FADES) * _SOON / _FADES)


class Hours:
    """In which hours of the week a model is asked for. `now` everywhere: seconds since 1970."""

    __slots__ = ("_asked", "_began", "_last")

    def __init__(self) -> None:
        self._asked: dict[int, float] = {}  # hour of the week → weeks in which it was asked for then, faded
        self._last: dict[int, int] = {}  # hour of the week → the last such hour, counted from 1970
        self._began: int | None = None  # the first hour that was counted

    def add(self, now: float) -> None:
        """A request. Only the first one of an hour counts."""
        hour = int(now // HOUR)
        slot = hour % HOURS
        last = self._last.get(slot)
        if last is not None and last >= hour:
            return
        self._began = hour if self._began is None else min(self._began, hour)
        self._asked[slot] = self._faded(slot, hour) + 1.0
        self._last[slot] = hour

    def odds(self, now: float) -> float:
        """The share of weeks, the late ones counting more, in which it was asked for at this hour; 0 before the second
        week is over."""
        hour = int(now // HOUR)
        weeks = 0 if self._began is None else (hour - self._began) // HOURS
        if weeks < 2:
            return 0.0
        # What a model asked for every week would have come to by now.
        most = sum(math.exp(-week / _WEEKS) for week in range(1, min(weeks, 520) + 1))
        slot = hour % HOURS
        asked = self._faded(slot, hour)
        if self._last.get(slot) == hour:
            asked -= 1.0
        return min(asked / most, 1.0) if asked > 0 else 0.0

    def _faded(self, slot: int, hour: int) -> float:
        last = self._last.get(slot)
        return 0.0 if last is None else self._asked[slot] * math.exp(-((hour - last) // HOURS) / _WEEKS)

    def dump(self) -> dict[str, Any]:
        return {"began": self._began, "hours": [[s, self._last[s], self._asked[s]] for s in sorted(self._asked)]}

    @classmethod
    def load(cls, kept: Mapping[str, Any]) -> Hours:
        made = cls()
        began, rows = kept.get("began"), kept.get("hours")
        made._began = began if _hour(began) else None
        for row in rows if isinstance(rows, list) else ():
            if isinstance(row, list) and len(row) == 3 and _hour(row[1]) and _number(row[2]):
                slot, last, asked = row
                if last % HOURS == slot and 0 < asked <= _WEEKS + 2:
                    made._asked[last % HOURS], made._last[last % HOURS] = float(asked), last
        return made


@dataclass(slots=True)
class Costs:
    """Seconds that one model took to come back, by how it was away: `off` or `asleep`."""

    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, how: str, seconds: float) -> None:
        before = self.seconds.get(how)
        self.seconds[how] = seconds if before is None else before + _NEWEST * (seconds - before)

    def of(self, how: str, size: int) -> float:
        """Measured, or for `size` bytes that were never loaded: two seconds and what a fast disk takes, and a tenth of
        that from sleep."""
        guess = 2.0 + size / 1e9
        return self.seconds.get(how, guess if how == "off" else guess / 10)


@dataclass(slots=True)
class Habits:
    """One model."""

    rate: Rate = field(default_factory=Rate)
    hours: Hours = field(default_factory=Hours)
    costs: Costs = field(default_factory=Costs)


def dump(known: Mapping[str, Habits]) -> dict[str, Any]:
    """Everything that outlives the process, as plain data. Rates do not: they fade in minutes."""
    return {
        "version": 1,
        "models": {name: {"wake": dict(one.costs.seconds), **one.hours.dump()} for name, one in known.items()},
    }


def load(kept: Any) -> dict[str, Habits]:
    """What `dump` made; nothing where it is something else."""
    models = kept.get("models") if isinstance(kept, dict) and kept.get("version") == 1 else None
    found: dict[str, Habits] = {}
    for name, one in list((models if isinstance(models, dict) else {}).items())[:_MODELS]:
        if not isinstance(one, dict):
            continue
        wake = one.get("wake")
        seconds = {how: float(s) for how, s in (wake if isinstance(wake, dict) else {}).items() if _number(s) and s > 0}
        found[str(name)] = Habits(hours=Hours.load(one), costs=Costs(seconds))
    return found


def _hour(value: object) -> bool:
    """Whether it is a count of hours since 1970."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
