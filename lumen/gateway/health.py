"""The health of every target: whom to ask, what came of it, and what an operator sees of it.

An attempt takes a pass with `begin` and gives it back with `ended`, once, whatever happens; the breaker's ticket for
a probe hangs on the pass. Loop time comes in; inside, it is epoch seconds that never step back while the process
lives: loop time plus an offset fixed at the start.

The last usable target is never ejected: where all are out, all but the drained are tried, the one due soonest first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lumen.core.breaker import Breaker, State, Verdict, judge
from lumen.core.errors import LumenError, RefusedError, SilentError
from lumen.core.latency import ENOUGH, Latency
from lumen.core.retrybudget import RetryBudget
from lumen.gateway.failovers import Failovers, read
from lumen.gateway.known import Known
from lumen.gateway.steps import Out, Steps

MAX_TARGETS = 2048
MAX_KEPT = 256
# Seconds over which the share of traffic is counted.
SHARE_WINDOW = 30.0
_CLOSED = State.CLOSED
_FORMAT = 1


class Pass:
    """Leave for one attempt at one target. `probing`: it is the one that finds out whether the target is back."""

    __slots__ = ("began", "ended", "size", "target", "ticket")

    def __init__(self, target: Known, began: float, ticket: int, size: int) -> None:
        self.target = target
        self.began = began
        self.ticket = ticket
        self.size = size
        self.ended = False

    @property
    def probing(self) -> bool:
        return self.ticket != 0


class Health:
    """All targets' health; bounded. Belongs to the event loop: nothing here waits or is called from a thread."""

    def __init__(self, draw: Callable[[], float], now: float, epoch: float) -> None:
        """`draw`: uniform in [0, 1). `now`, `epoch`: the loop's time and the clock's, of the same moment."""
        self._draw = draw
        self._offset = epoch - now
        self._targets: dict[str, Known] = {}
        self._window = epoch
        self._window_ends = epoch + SHARE_WINDOW
        self.retries = RetryBudget(now)
        self.failovers = Failovers()
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
                found[name] = Out(breaker.state, breaker.since, target.until(), breaker.why)
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

    def hedge_delay(self, name: str) -> float | None:
        """Seconds after which this target's first token is late; `None` while too little is known."""
        target = self._targets.get(name)
        return target.latency.hedge_delay() if target is not None else None

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

    def _succeeded(self, target: Known, given: Pass, now: float) -> None:
        breaker = target.breaker
        before = breaker.transitions
        breaker.succeeded(now, given.began, given.ticket)
        self.changes += breaker.transitions - before

    def _failed(self, target: Known, given: Pass, now: float, error: LumenError) -> None:
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
        return [target.shown(now, recent[target.name] / total) for target in self._targets.values()]

    def dump(self) -> dict[str, Any]:
        """What a restart must know, JSON-ready: the targets used last."""
        used = sorted(self._targets.values(), key=lambda t: t.used, reverse=True)[:MAX_KEPT]
        return {
            "format": _FORMAT,
            "targets": {target.name: target.dump() for target in used},
            "failovers": self.failovers.dump(),
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
            named = list(kept["targets"].items())[:MAX_KEPT]
            targets = {str(name): Known.load(str(name), one, now) for name, one in named}
            failovers = read(kept["failovers"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not the health of targets: {error}") from None
        self._targets.update(targets)
        self.failovers.add_all(failovers)

    def _add(self, name: str, now: float) -> Known:
        if len(self._targets) >= MAX_TARGETS:
            self._forget()
        target = Known(name, Breaker(now), Latency(now), now)
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
