"""The health of every target: whom to ask, what came of it, and what an operator sees of it.

An attempt takes a pass with `begin` and gives it back with `ended`, once, whatever happens; the breaker's ticket for
a probe hangs on the pass. Loop time comes in; inside, it is epoch seconds that never step back while the process
lives: loop time plus an offset fixed at the start.

The last usable target is never ejected: where all are out, all but the drained are tried, the one due soonest first.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice
from typing import Any

from lumen.config.schema import Timeouts
from lumen.core.breaker import Breaker, State, Verdict, judge
from lumen.core.errors import LumenError, RefusedError, SilentError
from lumen.core.latency import ENOUGH, Histogram, Latency, limits, stretch
from lumen.core.retrybudget import RetryBudget
from lumen.gateway.upstream import Limits

MAX_TARGETS = 2048
MAX_KEPT = 256
MAX_FAILOVERS = 200
# Seconds over which the share of traffic is counted.
SHARE_WINDOW = 30.0
_CLOSED = State.CLOSED
_FORMAT = 1


class _Target:
    """Everything known of one target."""

    __slots__ = (
        "before", "begun", "breaker", "in_flight", "latency",
        "limits", "limits_alone", "limits_at", "limits_of", "limits_over", "name", "used",
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
        self.limits: Limits | None = None
        self.limits_of: Timeouts | None = None
        self.limits_over: Limits | None = None
        self.limits_at = 0
        self.limits_alone = False


class Pass:
    """Leave for one attempt at one target. `probing`: it is the one that finds out whether the target is back."""

    __slots__ = ("began", "ended", "size", "target", "ticket")

    def __init__(self, target: _Target, began: float, ticket: int, size: int) -> None:
        self.target = target
        self.began = began
        self.ticket = ticket
        self.size = size
        self.ended = False

    @property
    def probing(self) -> bool:
        return self.ticket != 0


@dataclass(frozen=True, slots=True)
class Out:
    """A target that is out for now. `until`: epoch seconds; infinite where only an operator ends it."""

    state: State
    since: float
    until: float
    why: str


@dataclass(frozen=True, slots=True)
class Failover:
    """One answer that another target, or another replica, went on with.

    `rung`: of the failover ladder, `fresh` where nothing had been delivered; `position`: tokens or characters
    delivered by then; `seam_ms`: from the failure to the first event of the replacement; `time`: epoch seconds;
    `client`: what the client saw of it.
    """

    request_id: str
    time: float
    source: str
    to: str
    why: str
    rung: str
    position: int
    seam_ms: float | None
    client: str


_SHOWN = tuple(one.name for one in fields(Failover))


class Steps:
    """The order to try a plan in. Each target is looked at only when its turn comes.

    Those that are out are left for the end, the one due soonest first, and are to be forced. Drained ones never come.
    """

    __slots__ = ("_at", "_clock", "_last", "_names", "_offset", "_skipped", "_targets")

    def __init__(
        self, targets: Mapping[str, _Target], names: Sequence[str], clock: Callable[[], float], offset: float
    ) -> None:
        self._targets = targets
        self._names = names
        self._clock = clock
        self._offset = offset
        self._at = 0
        self._skipped: list[tuple[Breaker, int]] = []
        self._last: Iterator[tuple[int, bool]] | None = None

    def __iter__(self) -> Steps:
        return self

    def __next__(self) -> tuple[int, bool]:
        names = self._names
        while self._at < len(names):
            index = self._at
            self._at = index + 1
            target = self._targets.get(names[index])
            if target is None or target.breaker.state is _CLOSED or target.breaker.admits(self._clock() + self._offset):
                return index, False
            self._skipped.append((target.breaker, index))
        if self._last is None:
            last = [(b.until, index) for b, index in self._skipped if b.state is not State.DRAINED]
            self._last = iter([(index, True) for _, index in sorted(last)])
        return next(self._last)


class Health:
    """All targets' health; bounded. Belongs to the event loop: nothing here waits or is called from a thread."""

    def __init__(self, draw: Callable[[], float], now: float, epoch: float) -> None:
        """`draw`: uniform in [0, 1). `now`, `epoch`: the loop's time and the clock's, of the same moment."""
        self._draw = draw
        self._offset = epoch - now
        self._targets: dict[str, _Target] = {}
        self._window = epoch
        self._window_ends = epoch + SHARE_WINDOW
        self.retries = RetryBudget(now)
        self.failovers: deque[Failover] = deque(maxlen=MAX_FAILOVERS)
        # Grows with every change of a state: what is worth being written soon.
        self.changes = 0

    # -- whom to ask -----------------------------------------------------------------------------------------

    def steps(self, names: Sequence[str], clock: Callable[[], float]) -> Steps:
        """The order to try a plan in, as an iterator of (index, whether to force `begin`). `clock`: the loop's time."""
        return Steps(self._targets, names, clock, self._offset)

    def out(self, names: Sequence[str], now: float) -> dict[str, Out]:
        """Which of these would not be asked now, and why; empty where all would."""
        found: dict[str, Out] = {}
        for name in names:
            target = self._targets.get(name)
            if target is not None and not target.breaker.admits(now + self._offset):
                breaker = target.breaker
                found[name] = Out(breaker.state, breaker.since, _until(breaker), breaker.why)
        return found

    def within(self, names: Sequence[str], objective: float, now: float) -> list[int]:
        """Places of those that may be asked by a route that wants its first token within `objective` seconds."""
        now += self._offset
        found = []
        for place, name in enumerate(names):
            target = self._targets.get(name)
            if target is None or target.latency.pace.admits(objective, now, target.used):
                found.append(place)
        return found

    def late(self, name: str, objective: float) -> bool:
        """Whether it is left out, but for a try now and then, where a first token is wanted within `objective`."""
        target = self._targets.get(name)
        return target is not None and target.latency.pace.misses(objective)

    def usual(self, name: str) -> float | None:
        """The time to the first token that this target usually takes now; `None` while too little is known."""
        target = self._targets.get(name)
        return target.latency.pace.usual() if target is not None else None

    def usual_token(self, name: str) -> float | None:
        """The seconds that a token of this target usually takes; `None` while too little is known."""
        target = self._targets.get(name)
        if target is None or target.latency.per_token.weight < ENOUGH:
            return None
        return target.latency.per_token.quantiles()[0]

    # -- one attempt -----------------------------------------------------------------------------------------

    def begin(self, name: str, now: float, size: int = 0, *, force: bool = False) -> Pass | None:
        """Leave to try `name` once with a request of `size` bytes; `None`: it is out.

        `force`: nothing else is left to try. Only a drained target is out then.
        """
        now += self._offset
        target = self._targets.get(name) or self._add(name, now)
        breaker = target.breaker
        ticket = 0
        if breaker.state is not _CLOSED:
            entered = breaker.enter(now)
            if entered is not None:
                self.changes += 1
                ticket = entered
            elif not force or breaker.state is State.DRAINED:
                return None
        target.in_flight += 1
        target.begun += 1
        target.used = now
        return Pass(target, now, ticket, size)

    def serving(self, given: Pass, now: float, ttft: float | None = None) -> None:
        """The first token came, `ttft` seconds after the request was sent: a probe has succeeded with that.

        Where an answer comes whole, `ended` alone is enough.
        """
        target = given.target
        breaker = target.breaker
        now += self._offset
        if ttft is not None:
            slow = target.latency.first_token(ttft, now, given.size)
            if slow or breaker.slow:
                before = breaker.transitions
                breaker.paced(now, given.began, slow=slow, draw=self._draw())
                self.changes += breaker.transitions - before
        if breaker.state is not _CLOSED:
            self._succeeded(target, given, now)

    def ended(
        self,
        given: Pass,
        now: float,
        ok: bool | None,
        *,
        error: LumenError | None = None,
        max_gap: float | None = None,
        per_token: float | None = None,
    ) -> None:
        """The attempt is over. A second call changes nothing.

        Args:
            ok: served to its end; `False`: `error` broke it off; `None`: the client left.
            max_gap: the longest wait between two tokens, the one given up on included. per_token: seconds.
        """
        if given.ended:
            return
        given.ended = True
        now += self._offset
        target = given.target
        target.in_flight -= 1
        if max_gap is not None:
            target.latency.gap.add(max_gap, now)
        if per_token is not None:
            target.latency.per_token.add(per_token, now)
        if ok:
            self._succeeded(target, given, now)
        elif ok is None or error is None:
            target.breaker.released(given.ticket)
        else:
            self._failed(target, given, now, error)
        if now >= self._window_ends:
            self._turn(now)

    def _succeeded(self, target: _Target, given: Pass, now: float) -> None:
        breaker = target.breaker
        before = breaker.transitions
        breaker.succeeded(now, given.began, given.ticket)
        self.changes += breaker.transitions - before

    def _failed(self, target: _Target, given: Pass, now: float, error: LumenError) -> None:
        breaker = target.breaker
        before = breaker.transitions
        verdict = judge(error)
        why = _told(error)
        if isinstance(error, SilentError) and error.phase in ("headers", "first_token"):
            target.latency.gave_up(now - given.began, now)
        if verdict is Verdict.FAILURE:
            breaker.failed(now, given.began, given.ticket, why, draw=self._draw())
        elif verdict is Verdict.ASKED:
            breaker.asked_for(now, given.began, error.retry_after, why, draw=self._draw())
        # A probe that found out nothing is over all the same.
        breaker.released(given.ticket)
        self.changes += breaker.transitions - before

    # -- what history says -----------------------------------------------------------------------------------

    def limits(self, given: Pass, base: Limits, own: Timeouts, *, alone: bool = False, local: bool = False) -> Limits:
        """The limits of this attempt: `base` adapted to the target's history where the route sets none of its `own`.

        `alone`: the first token has at least the time of `base`, since nobody else would be asked for it; at a `local`
        model, which answers once it is a request's turn, the wait for that comes on top.
        """
        target = given.target
        latency = target.latency
        version = latency.first.version + latency.gap.version
        usual = stretch(given.size, latency.size) == 1.0
        made_for = usual and target.limits_of is own and target.limits_over is base and target.limits_alone is alone
        if made_for and target.limits_at == version:
            assert target.limits is not None
            return target.limits
        first, gap = limits(
            latency,
            (own.first_token, own.gap),
            (base.first_token, base.gap),
            total=base.total,
            size=given.size,
        )
        if alone:
            first = max(first, base.first_token)
        # Many targets send their headers with the first token.
        longer = own.headers is None and first > base.first_token
        headers = first if longer else min(base.headers, first) if own.headers is None else base.headers
        if alone and local and own.headers is None:
            headers += base.queue
        made = replace(base, headers=headers, first_token=first, gap=gap)
        if usual:
            target.limits, target.limits_of, target.limits_over, target.limits_at = made, own, base, version
            target.limits_alone = alone
        return made

    def hedge_delay(self, name: str) -> float | None:
        """Seconds after which this target's first token is late; `None` while too little is known."""
        target = self._targets.get(name)
        return target.latency.hedge_delay() if target is not None else None

    # -- operators and checks --------------------------------------------------------------------------------

    def eject(self, name: str, now: float, seconds: float | None, why: str) -> None:
        """Out for `seconds`, or until restored; tried where nothing else is left."""
        self._of(name, now).eject(now + self._offset, seconds, why)

    def drain(self, name: str, now: float, why: str) -> None:
        """Not asked again until restored; what is under way goes on."""
        self._of(name, now).drain(now + self._offset, why)

    def restore(self, name: str, now: float) -> None:
        """As new."""
        self._of(name, now).restore(now + self._offset)

    def alive(self, name: str, now: float) -> bool:
        """A check that cost nothing was answered. Whether that lets a probe in earlier."""
        target = self._targets.get(name)
        if target is None or not target.breaker.alive(now + self._offset):
            return False
        self.changes += 1
        return True

    def suspects(self, now: float) -> list[str]:
        """Open targets nobody asks at the moment, that a check may bring back earlier."""
        now += self._offset
        return [
            target.name
            for target in self._targets.values()
            if target.breaker.state is State.OPEN
            and not target.breaker.asked
            and not target.breaker.believed
            and not target.in_flight
            and now < target.breaker.until
        ]

    def _of(self, name: str, now: float) -> Breaker:
        self.changes += 1
        return (self._targets.get(name) or self._add(name, now + self._offset)).breaker

    def last_used(self) -> float:
        """When an attempt last began, epoch seconds; 0: never."""
        return max((target.used for target in self._targets.values()), default=0.0)

    # -- what is seen and kept -------------------------------------------------------------------------------

    def snapshot(self, now: float) -> list[dict[str, Any]]:
        """Every target, JSON-ready: milliseconds, epoch seconds, shares in [0, 1]."""
        now += self._offset
        if now >= self._window_ends:
            self._turn(now)
        # The last window counts by the part of it that is still within reach.
        part = 1.0 - (now - self._window) / SHARE_WINDOW
        recent = {t.name: t.begun + t.before * part for t in self._targets.values()}
        total = sum(recent.values()) or 1.0
        return [
            {
                "name": target.name,
                "state": target.breaker.state.value,
                "since": round(target.breaker.since, 3),
                "until": _shown(_until(target.breaker)),
                "why": target.breaker.why,
                "in_flight": target.in_flight,
                "share": round(recent[target.name] / total, 4),
                "error_rate": round(target.breaker.error_rate(now), 4),
                "first_token_ms": _percentiles(target.latency.first),
                "usual_first_token_ms": _milli(target.latency.pace.usual()),
                "gap_ms": _percentiles(target.latency.gap),
                "per_token_ms": _percentiles(target.latency.per_token),
            }
            for target in self._targets.values()
        ]

    def recent_failovers(self, most: int = MAX_FAILOVERS) -> list[dict[str, Any]]:
        """The last ones, newest first."""
        # Not `asdict`, which copies what it finds: the live view asks four times a second.
        return [{name: getattr(one, name) for name in _SHOWN} for one in islice(reversed(self.failovers), most)]

    def dump(self) -> dict[str, Any]:
        """What a restart must know, JSON-ready: the targets used last."""
        used = sorted(self._targets.values(), key=lambda t: t.used, reverse=True)[:MAX_KEPT]
        return {
            "format": _FORMAT,
            "targets": {
                t.name: {"used": t.used, "breaker": t.breaker.dump(), "latency": t.latency.dump()} for t in used
            },
            "failovers": [asdict(one) for one in self.failovers],
        }

    def load(self, kept: Any, now: float) -> None:
        """Take over what `dump` gave; all of it or nothing.

        Raises:
            ValueError: it is not from `dump`.
        """
        now += self._offset
        try:
            if kept["format"] != _FORMAT:
                raise ValueError("another format")
            targets = {}
            for name, one in list(kept["targets"].items())[:MAX_KEPT]:
                breaker, latency = Breaker.load(one["breaker"], now), Latency.load(one["latency"], now)
                targets[str(name)] = _Target(str(name), breaker, latency, min(float(one["used"]), now))
            failovers = [Failover(**one) for one in kept["failovers"]]
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not the health of targets: {error}") from None
        self._targets.update(targets)
        self.failovers.extend(failovers)

    def _add(self, name: str, now: float) -> _Target:
        if len(self._targets) >= MAX_TARGETS:
            self._forget()
        target = _Target(name, Breaker(now), Latency(now), now)
        if len(self._targets) < MAX_TARGETS:
            self._targets[name] = target
        return target

    def _forget(self) -> None:
        """Make room: a quarter goes, those unused longest; never one that is asked now or that an operator holds."""
        held = (State.EJECTED, State.DRAINED)
        idle = [t for t in self._targets.values() if not t.in_flight and t.breaker.state not in held]
        # A target that is out is worth more than one of which there is nothing to know.
        idle.sort(key=lambda t: (t.breaker.state is not _CLOSED, t.used))
        for target in idle[: MAX_TARGETS // 4]:
            del self._targets[target.name]

    def _turn(self, now: float) -> None:
        """Begin a new window of the shares."""
        stale = now >= self._window_ends + SHARE_WINDOW
        for target in self._targets.values():
            target.before = 0 if stale else target.begun
            target.begun = 0
        self._window = now if stale else self._window_ends
        self._window_ends = self._window + SHARE_WINDOW


def _told(error: LumenError) -> str:
    """What an operator reads: never the target's own words, which may show a key."""
    if isinstance(error, RefusedError):
        wait = f", wait {error.retry_after:g} s" if error.retry_after is not None else ""
        return f"status {error.upstream_status}{wait}" if error.upstream_status != 200 else "an error in its answer"
    if isinstance(error, SilentError):
        return f"silent ({error.phase.replace('_', ' ')})"
    return error.outcome


def _until(breaker: Breaker) -> float:
    return math.inf if breaker.state is State.DRAINED else breaker.until


def _shown(until: float) -> float | None:
    return None if math.isinf(until) else round(until, 3)


def _milli(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 2)


def _percentiles(histogram: Histogram) -> Mapping[str, float] | None:
    if not histogram.weight:
        return None
    p50, p95, p99 = histogram.quantiles()
    return {"p50": round(p50 * 1000, 2), "p95": round(p95 * 1000, 2), "p99": round(p99 * 1000, 2)}
