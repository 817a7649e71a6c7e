"""The replicas of one model, and the requests that wait for one of them. How many there are its pool decides."""

from __future__ import annotations

import asyncio
import math
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from lumen.core.errors import UnavailableError, WakingError
from lumen.workers.affinity import Affinity, Block, Busy
from lumen.workers.habits import Rate
from lumen.workers.lifecycle import State
from lumen.workers.load import LONGEST_WAIT, Lease, Line, parts
from lumen.workers.replica import Replica
from lumen.workers.rolling import Seen, moves
from lumen.workers.spec import Home, Spec

_HOPELESS = 3  # starts in a row that failed: from then on requests are told at once instead of waiting
_TRIED = 300.0  # seconds without a place to try again, after which such a model asks another one to make room
_AGAIN = 1.0  # seconds between two looks for room for requests that are refused meanwhile
_LOADS = (State.STARTING, State.PROBING, State.WAKING)
Prompt = Callable[[], Sequence[Block]]


class Watcher(Protocol):
    """Who is told what happens to a group."""

    def changed(self, group: Group, replica: Replica) -> None:
        """A replica has another state; the last one is `off`."""
        ...

    def asked(self, group: Group) -> None:
        """A request came that no replica can take now, or one more than `crowd`."""
        ...


@dataclass(slots=True, eq=False)
class _Waiter:
    lease: asyncio.Future[Lease]
    since: float
    prompt: Prompt | None


class Group:
    """`spec`: what is wanted now, `None` once dismissed. `crowd`: as many requests on its replicas are told of."""

    def __init__(self, name: str, home: Home, watcher: Watcher, rate: Rate) -> None:
        self.name = name
        self.replicas: list[Replica] = []
        self.spec: Spec | None = None
        self.crowd = sys.maxsize
        self._rate = rate
        self._home = home
        self._watcher = watcher
        self._clock = asyncio.get_running_loop().time
        self._count = 0
        self._queue = 0
        self._beside = True
        self._waiters: deque[_Waiter] = deque()
        self._denied: str | None = None
        self._asked = -math.inf  # when it was last told of one that is refused
        self._affinity = Affinity()
        self._line = Line()

    # -- what is wanted ----------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """How many replicas there should be."""
        return self._count

    @property
    def beside(self) -> bool:
        """Whether two of its replicas can run at the same time."""
        return self._beside

    @property
    def staying(self) -> list[Replica]:
        """Those that are not being stopped."""
        return [replica for replica in self.replicas if not replica.stopping]

    def current(self, replica: Replica) -> bool:
        """Whether it runs what is wanted now."""
        return replica.spec == self.spec

    def want(self, spec: Spec, queue: int, beside: bool) -> None:
        """Run `spec`. `queue`: requests that may wait. `beside`: an old and a new replica may run at the same time."""
        # A restart made the running spec differ in its generation only.
        if self.spec is None or replace(self.spec, generation=0) != spec:
            self.spec = spec
        self._queue, self._beside = queue, beside

    def aim(self, count: int) -> None:
        """There should be so many replicas."""
        self._count = count
        self._reconcile()

    def drop(self, replica: Replica, count: int) -> None:
        """Stop this very replica, and have `count` then."""
        self._count = count
        replica.stop(self._home.timing.replaced)
        self._reconcile()

    def renew(self) -> None:
        """Replace every replica by a new one of the same spec."""
        if self.spec is not None:
            self.spec = replace(self.spec, generation=self.spec.generation + 1)
            self._reconcile()

    def dismiss(self, grace: float) -> None:
        """Serve no more; running answers have `grace` seconds."""
        self.spec, self._count = None, 0
        for replica in self.replicas:
            replica.stop(grace)
        self._refuse(f"The model '{self.name}' is not being served any more.")

    async def gone(self) -> None:
        """Wait until every replica is off."""
        while self.replicas:
            await self.replicas[0].gone()

    def _reconcile(self) -> None:
        if self.spec is None:
            return
        staying = self.staying
        seen = [Seen(r.index, r.spec == self.spec, r.ready) for r in staying]
        ending = len(staying) < len(self.replicas)
        todo = moves(seen, self._count, beside=self._beside, ending=ending)
        for place in todo.stop:
            staying[place].stop(self._home.timing.replaced)
        for index in todo.start:
            self.replicas.append(Replica(self.spec, index, self._home, self._changed))

    def _changed(self, replica: Replica) -> None:
        state = replica.life.state
        if state is State.OFF:
            self.replicas.remove(replica)
        if state in (State.OFF, State.CRASHED):
            self._affinity.forget(replica.run.number)
        self._reconcile()
        self.serve_waiters()
        if self._hopeless():
            self._refuse(self._reason())
        self._watcher.changed(self, replica)

    # -- leases ------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Requests that wait for a replica."""
        return len(self._waiters)

    @property
    def since(self) -> float | None:
        """Since when the first of them waits."""
        return self._waiters[0].since if self._waiters else None

    @property
    def in_flight(self) -> int:
        """Requests on its replicas."""
        return sum(replica.load.in_flight for replica in self.replicas)

    async def acquire(self, timeout: float, prompt: Prompt | None = None, patience: float = math.inf) -> Lease:
        """See `Supervisor.acquire`."""
        self._rate.add(self._clock())
        there = [replica for replica in self.replicas if replica.open]
        if there and not self._waiters:
            self._check_load(there, patience)
            return self._choose(there, prompt).lease()
        if self._hopeless():
            if self._stuck():
                self._ask_again()
            raise self._unready(self._reason())
        if self._denied is not None:
            self._ask_again()
            raise self._unready(self._denied)
        self._watcher.asked(self)
        if timeout <= 0:
            raise self._waking()
        if len(self._waiters) >= self._queue:
            raise self._unready(f"The model '{self.name}' is starting and too many requests wait for it already.")
        return await self._wait(timeout, prompt)

    def _ask_again(self) -> None:
        """Tell of a request that is refused: by now there may be room. Not of each, where many are."""
        now = self._clock()
        if now - self._asked >= _AGAIN:
            self._asked = now
            self._watcher.asked(self)

    def deny(self, why: str | None) -> None:
        """Refuse requests that would have to wait, and those that do; `None`: no longer."""
        self._denied = why
        if why is not None:
            self._refuse(why)

    async def _wait(self, timeout: float, prompt: Prompt | None) -> Lease:
        waiter = _Waiter(asyncio.get_running_loop().create_future(), self._clock(), prompt)
        self._waiters.append(waiter)
        lease = waiter.lease
        try:
            await asyncio.wait({lease}, timeout=self._longest if timeout == math.inf else timeout)
            if timeout == math.inf and not lease.done():
                # It may have waited for memory before anything could start.
                await asyncio.wait({lease}, timeout=self._under_way())
        except asyncio.CancelledError:
            # It may have been given a lease in the very moment its request went away.
            if lease.done() and lease.exception() is None:
                lease.result().release()
            raise
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
        if lease.done():
            return lease.result()
        raise self._waking()

    @property
    def _longest(self) -> float:
        """Seconds that a start may take."""
        return self.spec.model.start_timeout if self.spec is not None else 0.0

    def _under_way(self) -> float:
        """Seconds that the start under way may still take; none where there is none."""
        ends = [r.life.wake for r in self.staying if r.life.state in _LOADS and r.life.wake is not None]
        return max(0.0, max(ends, default=0.0) - self._clock())

    def serve_waiters(self) -> None:
        """Give those that wait what is open now."""
        while self._waiters and (there := [replica for replica in self.replicas if replica.open]):
            waiter = self._waiters.popleft()
            replica = self._choose(there, waiter.prompt)
            lease = replica.lease()
            lease.queued, lease.woke = parts(waiter.since, replica.run.begun, replica.loaded, self._clock())
            waiter.lease.set_result(lease)

    def _choose(self, there: list[Replica], prompt: Prompt | None) -> Replica:
        """The least busy; of several, where it is known, the one at which the prompt's beginning was computed."""
        if len(there) == 1:
            return there[0]
        sound = [replica for replica in there if not replica.load.suspect]
        if prompt is None or len(sound) < 2:
            return min(there, key=_preference)
        busy = [Busy(replica.run.number, replica.load.in_flight, replica.slots) for replica in sound]
        return sound[self._affinity.choose(prompt(), busy)]

    @property
    def spare(self) -> bool:
        """Whether two replicas or more could serve now: the one that fails a request counts until it is known to."""
        return sum(replica.open and not replica.load.suspect for replica in self.replicas) >= 2

    def _refuse(self, reason: str) -> None:
        while self._waiters:
            self._waiters.popleft().lease.set_exception(self._unready(reason))

    def _check_load(self, there: list[Replica], patience: float) -> None:
        """A replica keeps what it cannot answer yet in a queue of its own; here that queue is given its bound."""
        in_flight = sum(replica.load.in_flight for replica in there)
        if in_flight >= self.crowd:
            self._watcher.asked(self)
        slots = sum(replica.slots for replica in there)
        known = [replica.run.at_once for replica in there]
        at_once = slots if None in known else sum(one or 0 for one in known)
        wait = self._line.wait(in_flight, at_once, self.releases, self._clock())
        if in_flight < slots + self._queue and (None in known or wait <= patience):
            return
        raise UnavailableError(
            f"The model '{self.name}' has too many requests waiting.",
            status=429,
            type="rate_limit_error",
            code="queue_full",
            retry_after=min(max(wait, 1.0), LONGEST_WAIT),
        )

    def releases(self) -> list[float]:
        """When the last requests ended, in order."""
        return sorted(time for replica in self.replicas if replica.ready for time in replica.load.releases)

    def _hopeless(self) -> bool:
        """Whether no replica is ready and each one failed to start again and again."""
        staying = self.staying
        return bool(staying) and all(replica.life.failed_starts >= _HOPELESS for replica in staying)

    def _stuck(self) -> bool:
        """Whether a hopeless one has not been tried for long, because others have its place."""
        now = self._clock()
        return all(one.life.state is State.WAITING and now - one.life.since >= _TRIED for one in self.staying)

    def _reason(self) -> str:
        why = next((replica.why for replica in self.replicas if replica.why), "its engine does not start")
        # After the colon comes what the engine said itself: paths, perhaps. That is for `states`.
        return f"The model '{self.name}' cannot be started: {why.partition(':')[0]}."

    def _waking(self) -> WakingError:
        return WakingError(f"The model '{self.name}' is still starting.", retry_after=self._retry_after())

    def _unready(self, message: str) -> UnavailableError:
        return UnavailableError(message, code="model_not_ready", retry_after=self._retry_after())

    def _retry_after(self) -> float:
        wakes = [r.life.wake for r in self.replicas if r.life.state is State.CRASHED and r.life.wake is not None]
        return max(min(wakes) - self._clock() if wakes else 0.0, 1.0)


def _preference(replica: Replica) -> tuple[bool, int, int]:
    """The least busy first; one whose last request failed comes after all others, until a probe has cleared it."""
    return replica.load.suspect, replica.load.in_flight, replica.index
