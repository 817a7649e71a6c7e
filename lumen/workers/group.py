"""The replicas of one model, and the requests that wait for one of them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from lumen.config.schema import Model
from lumen.core.errors import UnavailableError
from lumen.workers.lifecycle import State
from lumen.workers.load import Lease, retry_after
from lumen.workers.replica import Replica
from lumen.workers.rolling import Seen, moves
from lumen.workers.spec import Home, Spec

_HOPELESS = 3  # starts in a row that failed: from then on requests are told at once instead of waiting


class Group:
    """`changed` is told of every change of state of every replica."""

    def __init__(self, name: str, home: Home, changed: Callable[[Group, Replica], None]) -> None:
        self.name = name
        self.replicas: list[Replica] = []
        self._home = home
        self._notify = changed
        self._spec: Spec | None = None
        self._count = 0
        self._queue = 0
        self._beside = True
        self._waiters: deque[asyncio.Future[Lease]] = deque()

    # -- what is wanted ----------------------------------------------------------------------------------

    def want(self, spec: Spec, model: Model, beside: bool) -> None:
        """Run `model.replicas` of `spec`. `beside`: an old and a new replica may run at the same time."""
        # A restart made the running spec differ in its generation only.
        if self._spec is None or replace(self._spec, generation=0) != spec:
            self._spec = spec
        self._count, self._queue, self._beside = model.replicas, model.queue, beside
        self._reconcile()

    def renew(self) -> None:
        """Replace every replica by a new one of the same spec."""
        if self._spec is not None:
            self._spec = replace(self._spec, generation=self._spec.generation + 1)
            self._reconcile()

    def dismiss(self, grace: float) -> None:
        """Serve no more; running answers have `grace` seconds."""
        self._spec, self._count = None, 0
        for replica in self.replicas:
            replica.stop(grace)
        self._refuse(f"The model '{self.name}' is not being served any more.")

    async def gone(self) -> None:
        """Wait until every replica is off."""
        while self.replicas:
            await self.replicas[0].gone()

    def _reconcile(self) -> None:
        if self._spec is None:
            return
        staying = [replica for replica in self.replicas if not replica.stopping]
        seen = [Seen(r.index, r.spec == self._spec, r.ready) for r in staying]
        ending = len(staying) < len(self.replicas)
        todo = moves(seen, self._count, beside=self._beside, ending=ending)
        for place in todo.stop:
            staying[place].stop(self._home.timing.replaced)
        for index in todo.start:
            self.replicas.append(Replica(self._spec, index, self._home, self._changed))

    def _changed(self, replica: Replica) -> None:
        if replica.life.state is State.OFF:
            self.replicas.remove(replica)
        self._reconcile()
        self._serve_waiters()
        if self._hopeless():
            self._refuse(self._reason())
        self._notify(self, replica)

    # -- leases ------------------------------------------------------------------------------------------

    async def acquire(self, timeout: float) -> Lease:
        """See `Supervisor.acquire`."""
        ready = [replica for replica in self.replicas if replica.ready]
        if ready and not self._waiters:
            self._check_load(ready)
            return min(ready, key=_preference).lease()
        if self._hopeless():
            raise self._unready(self._reason())
        if len(self._waiters) >= self._queue:
            raise self._unready(f"The model '{self.name}' is starting and too many requests wait for it already.")
        return await self._wait(timeout)

    async def _wait(self, timeout: float) -> Lease:
        waiter: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await asyncio.wait({waiter}, timeout=timeout)
        except asyncio.CancelledError:
            # It may have been given a lease in the very moment its request went away.
            if waiter.done() and waiter.exception() is None:
                waiter.result().release()
            raise
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
        if waiter.done():
            return waiter.result()
        raise self._unready(f"The model '{self.name}' is still starting.")

    def _serve_waiters(self) -> None:
        while self._waiters and (ready := [replica for replica in self.replicas if replica.ready]):
            self._waiters.popleft().set_result(min(ready, key=_preference).lease())

    def _refuse(self, reason: str) -> None:
        while self._waiters:
            self._waiters.popleft().set_exception(self._unready(reason))

    def _check_load(self, ready: list[Replica]) -> None:
        """A replica keeps what it cannot answer yet in a queue of its own; here that queue is given its bound."""
        in_flight = sum(replica.load.in_flight for replica in ready)
        slots = sum(replica.slots for replica in ready)
        if in_flight < slots + self._queue:
            return
        releases = sorted(time for replica in ready for time in replica.load.releases)
        raise UnavailableError(
            f"The model '{self.name}' has too many requests waiting.",
            status=429,
            type="rate_limit_error",
            code="queue_full",
            retry_after=retry_after(releases, max(in_flight - slots, 1)),
        )

    def _hopeless(self) -> bool:
        """Whether no replica is ready and each one failed to start again and again."""
        staying = [replica for replica in self.replicas if not replica.stopping]
        return bool(staying) and all(replica.life.failed_starts >= _HOPELESS for replica in staying)

    def _reason(self) -> str:
        why = next((replica.why for replica in self.replicas if replica.why), "its engine does not start")
        # After the colon comes what the engine said itself: paths, perhaps. That is for `states`.
        return f"The model '{self.name}' cannot be started: {why.partition(':')[0]}."

    def _unready(self, message: str) -> UnavailableError:
        wakes = [r.life.wake for r in self.replicas if r.life.state is State.CRASHED and r.life.wake is not None]
        left = min(wakes) - asyncio.get_running_loop().time() if wakes else 0.0
        return UnavailableError(message, code="model_not_ready", retry_after=max(left, 1.0))


def _preference(replica: Replica) -> tuple[bool, int, int]:
    """The least busy first; one whose last request failed comes after all others, until a probe has cleared it."""
    return replica.load.suspect, replica.load.in_flight, replica.index
