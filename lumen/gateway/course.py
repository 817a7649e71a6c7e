"""Which target a request is tried at next, and how. Decides; `attempts.py` acts on it.

Before anything was delivered the plan is walked in order, past targets that are out. After, every target of the plan
is asked on which rungs of the failover ladder it could go on, and the best rung of all is taken first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from lumen.core.budget import BudgetError
from lumen.core.errors import (
    BrokenError,
    ConnectError,
    LumenError,
    SilentError,
    UnavailableError,
    UpstreamError,
    WakingError,
)
from lumen.core.resume import MAX_SPLICES, Asked, Place, Rung, moves_down, rungs
from lumen.core.retry import MOST_PROCESSES, Next, after, lost
from lumen.core.trace import Trace
from lumen.gateway.health import Health
from lumen.gateway.table import Target

# Seconds between tries at a local model whose process has ended, until its supervisor has noticed.
_LOOKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
_RANK = {rung: rank for rank, rung in enumerate(Rung)}


class Leg(Struct, frozen=True):
    """One attempt to make. `rung`: how it goes on with what was delivered; `None`: from the beginning.

    `forced`: the target is out, but nothing else is left. `patient`: a local model that starts or wakes is waited for.
    `alone`: there is nobody else, so that it is given all the time the route allows, not what it usually needs.
    """

    target: Target
    reason: str
    rung: Rung | None = None
    forced: bool = False
    patient: bool = True
    alone: bool = False


class Course:
    """The way of one request through its plan.

    Args:
        plan: targets with the reason for each, in the policy's order.
        fresh: how many of them, from the first on, may be asked for an answer that has yet to begin; all if not given.
        most: continuations of one answer.
        cover: while a local model starts or wakes the other targets answer; it is waited for only if they cannot.
        clock: the loop's time. draw: uniform in [0, 1).
    """

    def __init__(
        self,
        plan: Sequence[tuple[Target, str]],
        trace: Trace,
        asked: Asked,
        health: Health,
        *,
        around_filter: bool,
        clock: Callable[[], float],
        draw: Callable[[], float],
        fresh: int | None = None,
        most: int = MAX_SPLICES,
        cover: bool = False,
    ) -> None:
        self._plan = plan
        first = plan if fresh is None else plan[:fresh]
        self._alone = len(first) == 1
        self._most = most
        self._processes = max(MOST_PROCESSES, most + 1)
        self._cover = cover and not self._alone
        self._covered: list[Leg] = []
        self._leg: Leg | None = None
        self._trace = trace
        self._asked = asked
        self._health = health
        self._around_filter = around_filter
        self._clock = clock
        self._draw = draw
        self._fresh = health.steps([target.name for target, _ in first], clock)
        self._again: Leg | None = None
        self._kept: Leg | None = None
        self._tries = 0
        self._looks = 0
        self._ended = 0
        self._larger_than: int | None = None
        self._ways: Iterator[Leg] | None = None
        self._mixed = False
        self.splices = 0
        self.failure: LumenError | None = None

    def next(self) -> Leg | None:
        """The next attempt; `None` when nothing is left to try."""
        if self._again is not None:
            again, self._again = self._again, None
            return again
        if self._kept is not None:
            kept, self._kept = self._kept, None
            # What it was kept for is over where something was delivered: every way on was listed then.
            if not self._trace.delivered:
                self._tries = 0
                return kept
        if self._trace.delivered:
            return next(self._ways, None) if self._ways is not None else None
        for index, forced in self._fresh:
            target, reason = self._plan[index]
            if self._larger_than is None or (target.offer.context or 0) > self._larger_than:
                self._tries = 0
                patient = not (self._cover and target.can.local)
                self._leg = Leg(target, reason, forced=forced, patient=patient, alone=self._alone)
                return self._leg
        if self._covered:
            leg = self._covered.pop(0)
            self._leg = replace(leg, reason=f"{leg.reason}, waited for", forced=True, patient=True, alone=True)
            return self._leg
        return None

    def keep(self, leg: Leg) -> None:
        """A leg that could not be taken yet, beside another one: it is the next after that."""
        self._kept = leg

    def refused(self, error: LumenError) -> None:
        """The attempt could not be made: no replica, no money for it, or the target is out.

        Where money is in the way of several, the client is told what the cheapest of them needs.
        """
        if isinstance(error, WakingError) and self._leg is not None and not self._leg.patient:
            self._covered.append(self._leg)
        known = self.failure
        cheaper = isinstance(known, BudgetError) and isinstance(error, BudgetError) and known.needed <= error.needed
        if known is None or not (self._trace.delivered or cheaper):
            self.failure = error

    def failed(self, leg: Leg, error: UpstreamError, *, progressed: bool) -> float:
        """An attempt was made and failed. Seconds to wait before the next one.

        Args:
            progressed: it delivered something of its own.

        Raises:
            LumenError: nothing else may be tried.
        """
        if progressed:
            self._looks = self._ended = 0
        elif (pause := self._unnoticed(leg, error)) is not None:
            self._again = replace(leg, forced=True)
            return pause
        if self._trace.delivered:
            self._broke(leg, error, progressed)
            return 0.0
        self.failure = error
        self._tries += 1
        local = leg.target.can.local
        spare = local and leg.target.upstream.spare()
        decision = after(
            error, tries=self._tries, draw=self._draw(), processes=self._processes, around_filter=self._around_filter,
            local=local, spare=spare,
        )  # fmt: skip
        if decision.next is Next.GIVE_UP:
            raise error
        if decision.next is Next.LARGER:
            self._larger_than = max(leg.target.offer.context or 0, self._larger_than or 0)
            return 0.0
        # Every further attempt is taken from the budget, but only asking the same target again hangs on it: a target
        # that died under fifty requests must not cost all but a few of them their answer elsewhere.
        allowed = spare or lost(error, local=local) or self._health.retries.retry(self._clock())
        if decision.next is not Next.SAME or not allowed:
            return 0.0
        self._again = replace(leg, forced=self._alone)
        return decision.pause

    def _unnoticed(self, leg: Leg, error: UpstreamError) -> float | None:
        """Seconds to wait for the supervisor where a local model's process is gone and only it does not know yet.

        Then another replica, or the process started again, takes the same leg. A process that ends while it takes up an
        answer token by token is no reason to go on less exactly either.
        """
        gone = isinstance(error, ConnectError) or (
            # A connection kept from before, or one that nobody took up any more. Where nothing was delivered, it may be
            # this request that ends the process.
            isinstance(error, BrokenError) and error.phase == "headers" and leg.rung is not None and not self._looks
        )
        local = leg.target.can.local
        if gone and local and self._looks < len(_LOOKS):
            self._looks += 1
            return _LOOKS[self._looks - 1]
        if leg.rung is Rung.TOKEN_EXACT and lost(error, local=local) and self._ended < self._processes:
            self._ended += 1
            return _LOOKS[0]
        return None

    def _broke(self, leg: Leg, error: UpstreamError, progressed: bool) -> None:
        """After something was delivered: the next way on, unless the client must be told."""
        if leg.rung is not None and not progressed:
            # The way did not hold; the ways below it were listed when the stream broke.
            if isinstance(error, SilentError) or moves_down(leg.rung, getattr(error, "upstream_status", 0)):
                return
            self.failure = self.failure or error
            return
        self.splices += leg.rung is not None
        self.failure = error
        if leg.rung not in (None, Rung.TOKEN_EXACT, Rung.REPLAY_EXACT):
            # What the client has is now two models' work: none of it can be replayed.
            self._mixed = True
        self._ways = iter(self._ladder(leg.target, silent=isinstance(error, SilentError)))

    def _ladder(self, broke: Target, *, silent: bool) -> list[Leg]:
        """Every way on, best rung first; on one rung the target that broke comes first, then the plan's order."""
        found: list[tuple[int, int, Leg]] = []
        for place, (target, _) in enumerate(self._plan):
            same = target.name == broke.name
            if same and silent and not target.can.local:
                # A silent target is not tried twice. A local model has other replicas, or a new process.
                continue
            at = Place(
                same_model=same or (target.model == broke.model and not (target.can.local or broke.can.local)),
                token_ids=target.can.token_ids and same,
                prefill=target.can.prefill != "none",
                seed=target.can.seed and (target.can.token_ids or not self._asked.lent),
                state=target.can.sampler_state,
            )
            for rung in rungs(self._trace, self._asked, at, self.splices, most=self._most, mixed=self._mixed):
                if rung is not Rung.NONE:
                    leg = Leg(target, f"continues {broke.name}, {rung.value}", rung, forced=True, alone=self._alone)
                    found.append((_RANK[rung], -1 if same else place, leg))
        return [leg for _, _, leg in sorted(found, key=lambda way: way[:2])]

    def verdict(self) -> LumenError:
        """What the client is told when nothing is left."""
        return self.failure or UnavailableError("No target can serve this request now.")
