"""Whether a target may be asked now: closed, open, half-open; held by an operator. Pure: now and chance are arguments.

| state | success | failure | trip | asked | ticket | alive | eject | drain | restore |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
| closed | closed | closed | open | open | closed | – | ejected | drained | closed |
| open | closed | – | – | open | half-open, once due | half-open | ejected | drained | closed |
| half-open | closed | open | – | open | half-open, one at a time | – | ejected | drained | closed |
| ejected | – | – | – | – | half-open, once due | – | ejected | drained | closed |
| drained | – | – | – | – | – | – | ejected | drained | closed |

- trip: five failures in a row; half of at least ten outcomes within 30 s; half of the last twenty first tokens slow
  against the target's own history (`core/latency.py` says which are).
- failure of a half-open target: of its probe. Nobody else's failure says more than that the target was out.
- asked: the target asked to be left alone. With a time: until then, at most an hour. Without: 5 s, growing.
- alive: a check that costs nothing was answered. Believed once until the target has served again, and never about a
  target that asked for time.
- An outcome of an attempt that began before the state did says nothing about it: fifty streams that die together are
  one event, and an answer that began in better times does not end an ejection.
- Ejections last 2 s, doubled each time up to 10 s, and halved again for every 10 s of service. A probe that has shown
  nothing after 5 s lets the next one in. So a target that is healthy again serves within 15 s.
- ejected: out, by an operator; tried where nothing else is left. drained: never asked.

Times are epoch seconds, so that they survive a restart. Where the clock stepped back, what is left to wait stays.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from lumen.core.errors import LumenError, RefusedError, Retry, UpstreamError
from lumen.core.retry import QUEUE_FULL

IN_A_ROW = 5
WINDOW = 30.0
ENOUGH = 10
SLOW_OF = 20
FIRST_SPAN = 2.0
ASKED_SPAN = 5.0
LONGEST = 10.0
LONGEST_ASKED = 3600.0
PATIENCE = 5.0
FORGIVEN = 10.0
# A `Retry-After` up to this is waited out by the request that was told; it closes the target to nobody else.
SHORT = 3.0
JITTER = 0.1
_SLOT = 5.0
_SLOTS = round(WINDOW / _SLOT)
_MOST_GROWTH = 3
_RECENT = 60.0
_MASK = (1 << SLOW_OF) - 1
_LONGEST_WHY = 200
# Refusals of the request itself, whatever may be tried elsewhere: they say nothing about the target.
_ABOUT_THE_REQUEST = frozenset({400, 405, 406, 409, 411, 412, 413, 414, 415, 416, 422, 431})


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    EJECTED = "ejected"
    DRAINED = "drained"


class Event(StrEnum):
    SUCCESS = "success"
    FAILURE = "failure"
    TRIP = "trip"
    ASKED = "asked"
    TICKET = "ticket"
    ALIVE = "alive"
    EJECT = "eject"
    DRAIN = "drain"
    RESTORE = "restore"


_CLOSED, _OPEN, _HALF_OPEN, _EJECTED, _DRAINED = State
_OPERATOR = {Event.EJECT: _EJECTED, Event.DRAIN: _DRAINED, Event.RESTORE: _CLOSED}
# Where an event leads from a state; a state that does not list an event takes no notice of it.
NEXT: Mapping[State, Mapping[Event, State]] = {
    _CLOSED: {
        Event.SUCCESS: _CLOSED,
        Event.FAILURE: _CLOSED,
        Event.TRIP: _OPEN,
        Event.ASKED: _OPEN,
        Event.TICKET: _CLOSED,
        **_OPERATOR,
    },
    _OPEN: {
        Event.SUCCESS: _CLOSED,
        Event.ASKED: _OPEN,
        Event.TICKET: _HALF_OPEN,
        Event.ALIVE: _HALF_OPEN,
        **_OPERATOR,
    },
    _HALF_OPEN: {
        Event.SUCCESS: _CLOSED,
        Event.FAILURE: _OPEN,
        Event.ASKED: _OPEN,
        Event.TICKET: _HALF_OPEN,
        **_OPERATOR,
    },
    _EJECTED: {Event.TICKET: _HALF_OPEN, **_OPERATOR},
    _DRAINED: {**_OPERATOR},
}


class Verdict(StrEnum):
    """What an error says about the target that raised it."""

    NEUTRAL = "neutral"
    FAILURE = "failure"
    ASKED = "asked"


def judge(error: LumenError) -> Verdict:
    """What `error` says about the target.

    | error | says |
    | --- | --- |
    | NEVER; not sayable in the dialect; 400, 409, 413, 415, 422 … of the target; its own queue is full | nothing |
    | a `Retry-After` of more than 3 s; 429 without one | it asks to be left alone |
    | anything else: no connection, silence, a break, 5xx, 401, 403, 429 with a short wait, nonsense | it failed |
    """
    if not isinstance(error, UpstreamError):
        return Verdict.NEUTRAL if error.status == 429 else Verdict.FAILURE
    if error.retry is Retry.NEVER or error.phase == "encode":
        return Verdict.NEUTRAL
    if not isinstance(error, RefusedError):
        return Verdict.FAILURE
    if error.upstream_status in _ABOUT_THE_REQUEST or error.code == QUEUE_FULL:
        return Verdict.NEUTRAL
    if error.retry_after is None:
        return Verdict.ASKED if error.upstream_status == 429 else Verdict.FAILURE
    return Verdict.ASKED if error.retry_after > SHORT else Verdict.FAILURE


class Breaker:
    """The breaker of one target. `since`: when its state began; `why`: what led to it; `until`: when an end is due.

    `until` of a half-open target is when its probe's patience ends; it means nothing while closed or drained.
    """

    __slots__ = (
        "_bad", "_edge", "_good", "_in_a_row", "_past", "_probe", "_probes", "_slow_at",
        "asked", "believed", "growth", "since", "slow", "state", "transitions", "until", "why",
    )  # fmt: skip
    # Outcomes of the current slot of the window, when it began, and those of the slots before.
    _good: int
    _bad: int
    _edge: float
    _past: deque[tuple[int, int]]
    _in_a_row: int
    # The last twenty first tokens while closed, the newest lowest: 1 is a slow one. And when the last of those was.
    slow: int
    _slow_at: float

    def __init__(self, now: float) -> None:
        self.state = _CLOSED
        self.since = now
        self.until = now
        self.why = ""
        # Grows with every event the table takes notice of but the counting of outcomes.
        self.transitions = 0
        # How often the ejection has doubled.
        self.growth = 0
        # Whether it is out because it asked for that.
        self.asked = False
        # Whether a check outside any request was believed since it last served.
        self.believed = False
        # The ticket of the probe under way; 0: none. `_probes` counts them, so that none is taken for another.
        self._probe = 0
        self._probes = 0
        self._clear(now)

    # -- asking ----------------------------------------------------------------------------------------------

    def admits(self, now: float) -> bool:
        """Whether `enter` would let an attempt in."""
        if self.state is _CLOSED:
            return True
        if self.state is _DRAINED:
            return False
        self._steady(now)
        return now >= self.until or (self.state is _HALF_OPEN and not self._probe)

    def enter(self, now: float) -> int | None:
        """Let an attempt in: 0, or the number of the ticket it holds as the probe. `None`: not now.

        The ticket ends with `succeeded`, `failed`, `asked_for` or `released`.
        """
        if self.state is _CLOSED:
            return 0
        if not self.admits(now):
            return None
        if self.state is not _HALF_OPEN:
            self._to(Event.TICKET, now)
        self._probes += 1
        self._probe = self._probes
        self.until = now + PATIENCE
        return self._probe

    def error_rate(self, now: float) -> float:
        """Failures among the outcomes of the last 30 s, in [0, 1]."""
        self._turn(now)
        good, bad = self._totals()
        return bad / (good + bad) if bad else 0.0

    # -- outcomes --------------------------------------------------------------------------------------------

    def succeeded(self, now: float, began: float, ticket: int) -> None:
        """An attempt that began at `began` was served; for a probe, its first token is enough."""
        if self.state is _CLOSED:
            self._in_a_row = 0
            if not 0.0 <= now - self._edge < _SLOT:
                self._turn(now)
            self._good += 1
        elif Event.SUCCESS in NEXT[self.state] and (began >= self.since or self._holds(ticket)):
            self._to(Event.SUCCESS, now)

    def paced(self, now: float, began: float, *, slow: bool, draw: float) -> None:
        """A first token came. `slow`: against the target's own history. Needs no call while it and `slow` are nothing.

        `draw`: uniform in [0, 1), here and below.
        """
        if self.state is not _CLOSED or began < self.since:
            return
        if not 0.0 <= now - self._slow_at < _RECENT:
            self.slow = 0
        self.slow = (self.slow << 1 | slow) & _MASK
        if slow:
            self._slow_at = now
        count = self.slow.bit_count()
        if 2 * count >= SLOW_OF:
            why = f"{count} of the last {SLOW_OF} first tokens far slower than usual"
            self._eject(Event.TRIP, now, FIRST_SPAN, why, draw)

    def failed(self, now: float, began: float, ticket: int, why: str, *, draw: float) -> None:
        """An attempt failed by the target's own doing."""
        self._steady(now)
        if self.state is _CLOSED:
            if began >= self.since:
                self._count_failure(now, why, draw)
        elif self._holds(ticket):
            self._eject(Event.FAILURE, now, FIRST_SPAN, f"probe failed: {why}", draw)

    def asked_for(self, now: float, began: float, seconds: float | None, why: str, *, draw: float) -> None:
        """The target asked to be left alone for `seconds`; `None`: it did not say how long."""
        self._steady(now)
        if Event.ASKED not in NEXT[self.state]:
            return
        if seconds is None:
            if began >= self.since and self.state is not _OPEN:
                self._eject(Event.ASKED, now, ASKED_SPAN, why, draw)
                self.asked = True
            return
        until = now + min(max(seconds, 0.0), LONGEST_ASKED)
        if self.state is _OPEN:
            until = max(until, self.until)
        self._to(Event.ASKED, now, why)
        self.until, self.asked = until, True

    def released(self, ticket: int) -> None:
        """An attempt ended without saying anything about the target: the client left, or asked nonsense."""
        if self._holds(ticket):
            self._probe = 0

    def alive(self, now: float) -> bool:
        """A check outside any request was answered: an open target may be probed now. Whether that was believed."""
        if self.state is not _OPEN or self.asked or self.believed:
            return False
        self.believed = True
        self._to(Event.ALIVE, now, self.why)
        return True

    # -- operators -------------------------------------------------------------------------------------------

    def eject(self, now: float, seconds: float | None, why: str) -> None:
        """Out for `seconds`, `None`: until restored. Still tried where nothing else is left."""
        self._to(Event.EJECT, now, why)
        self.until = math.inf if seconds is None else now + max(seconds, 0.0)

    def drain(self, now: float, why: str) -> None:
        """Never asked again until restored; what is under way goes on."""
        self._to(Event.DRAIN, now, why)

    def restore(self, now: float) -> None:
        """As new, whatever it was."""
        self._to(Event.RESTORE, now)
        self.growth = 0

    # -- keeping ---------------------------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        """JSON-ready; counts are not kept, they are of the last half minute."""
        return {
            "state": self.state.value,
            "since": self.since,
            "until": None if math.isinf(self.until) else self.until,
            "why": self.why,
            "growth": self.growth,
            "asked": self.asked,
        }

    @classmethod
    def load(cls, kept: Mapping[str, Any], now: float) -> Breaker:
        """What `dump` gave. A probe does not survive a restart: a half-open target is due at once.

        Raises:
            ValueError: it is not from `dump`.
        """
        try:
            made = cls(now)
            made.state = State(kept["state"])
            made.since = _finite(kept["since"])
            made.until = math.inf if kept["until"] is None else _finite(kept["until"])
            made.why = str(kept["why"])[:_LONGEST_WHY]
            made.growth = min(max(int(kept["growth"]), 0), _MOST_GROWTH)
            made.asked = kept["asked"] is True
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"not a breaker: {error}") from None
        made._steady(now)
        if made.state is _HALF_OPEN:
            made.until = now
        return made

    # -- inside ----------------------------------------------------------------------------------------------

    def _holds(self, ticket: int) -> bool:
        return ticket != 0 and ticket == self._probe and self.state is _HALF_OPEN

    def _count_failure(self, now: float, why: str, draw: float) -> None:
        self._turn(now)
        self._bad += 1
        self._in_a_row += 1
        good, bad = self._totals()
        if self._in_a_row >= IN_A_ROW:
            self._eject(Event.TRIP, now, FIRST_SPAN, f"{self._in_a_row} failures in a row: {why}", draw)
        elif good + bad >= ENOUGH and bad >= good:
            self._eject(Event.TRIP, now, FIRST_SPAN, f"{bad} of {good + bad} attempts failed: {why}", draw)

    def _eject(self, event: Event, now: float, span: float, why: str, draw: float) -> None:
        if self.state is _CLOSED:
            self.growth = max(self.growth - int((now - self.since) / FORGIVEN), 0)
        span = min(span * 2**self.growth, LONGEST) * (1.0 - JITTER * draw)
        self.growth = min(self.growth + 1, _MOST_GROWTH)
        self._to(event, now, why)
        self.until = now + span

    def _to(self, event: Event, now: float, why: str = "") -> None:
        before, self.state = self.state, NEXT[self.state][event]
        self.transitions += 1
        self.since = self.until = now
        self.why = why[:_LONGEST_WHY] if why or self.state is _CLOSED else self.why
        self.asked = False
        self._probe = 0
        if self.state is _CLOSED and before is not _CLOSED:
            self.believed = False
            self._clear(now)

    def _steady(self, now: float) -> None:
        """Where the clock stepped back, everything moves with it; and no wait is longer than its kind can be."""
        back = self.since - now
        if back > 0.0:
            self.since -= back
            self.until -= back
        if self.state is _HALF_OPEN:
            self.until = min(self.until, now + PATIENCE)
        elif self.state is _OPEN:
            self.until = min(self.until, now + (LONGEST_ASKED if self.asked else LONGEST))

    def _clear(self, now: float) -> None:
        self._edge = now
        self._good = self._bad = self._in_a_row = 0
        self._past = deque(maxlen=_SLOTS - 1)
        self.slow = 0
        self._slow_at = now

    def _turn(self, now: float) -> None:
        """Start a new slot of the window where the current one is over."""
        passed = now - self._edge
        if 0.0 <= passed < _SLOT:
            return
        if passed < 0.0 or passed >= WINDOW:
            self._past.clear()
        else:
            self._past.append((self._good, self._bad))
            self._past.extend([(0, 0)] * (int(passed / _SLOT) - 1))
        self._good = self._bad = 0
        self._edge = now if passed < 0.0 else now - passed % _SLOT

    def _totals(self) -> tuple[int, int]:
        return (
            self._good + sum(good for good, _ in self._past),
            self._bad + sum(bad for _, bad in self._past),
        )


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("not a time")
    return number
