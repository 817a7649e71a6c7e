"""What replicas hold, kept in the byte ledger: set aside before a start, measured after it, seen back after its end."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from typing import Any

from lumen.workers.holdings import Stage
from lumen.workers.lifecycle import State
from lumen.workers.replica import Replica
from lumen.workers.seats import Memory, Seat

_logger = logging.getLogger(__name__)

_SETTLE = 0.3  # seconds before a replica that has just loaded is measured
_READ = 0.1  # seconds between readings while memory is on its way back
_WATCH = 30.0  # seconds between readings otherwise: replicas fill up with use, strangers come and go
_STALE = 1.0  # seconds after which a reading is too old to give memory of a card away on, or to refuse somebody
_LAST = 2.0  # seconds that the last reading may take
_BACK = 10.0  # seconds that memory may take to be seen back once its process is gone


class Accounts:
    """The one writer of the ledger. `replicas`: all there are; `moved` is told when memory may have come free."""

    def __init__(self, memory: Memory, replicas: Callable[[], Iterable[Replica]], moved: Callable[[], None]) -> None:
        self._memory = memory
        self._ledger = memory.ledger
        self._replicas = replicas
        self._moved = moved
        self._loop = asyncio.get_running_loop()
        self._seats: dict[str, Seat] = {}  # by replica: where it was put
        self._ended: dict[str, int] = {}  # by replica: its process that crashed; what it left is found by it
        self._tasks: set[asyncio.Task[None]] = set()
        self._next: asyncio.TimerHandle | None = None
        self._reading: asyncio.Task[None] | None = None
        self._read = -math.inf
        self.cards = frozenset(one.id for one in self._ledger.devices.values() if one.kind != "ram")

    # -- what there is -----------------------------------------------------------------------------------

    def free(self) -> dict[str, int]:
        """Bytes that anybody could get, by device."""
        return {device: self._ledger.free(device) for device in self._ledger.devices}

    def returning(self) -> dict[str, int]:
        """Bytes on their way back, by device."""
        return {one.device.id: one.returning for one in self._ledger.standing()}

    def loading(self) -> set[str]:
        """Cards on which something loads now."""
        starting = (one for one in self._ledger.holdings() if one.stage is Stage.STARTING)
        return {device for one in starting for device in one.charged if device in self.cards}

    def holds(self, replica: Replica) -> dict[str, int]:
        """Bytes charged to a replica, by device."""
        holding = self._ledger.holding(replica.key)
        return dict(holding.charged) if holding is not None and holding.stage is not Stage.RETURNING else {}

    def aside(self, replica: Replica) -> dict[str, int]:
        """Bytes that are set aside for its model and not in use, by device: beyond what anybody could get."""
        ledger, claims = self._ledger, _claims(replica)
        return {device: ledger.free(device, draws=claims) - ledger.free(device) for device in ledger.devices}

    def reserved(self, replica: Replica) -> bool:
        """Whether what it holds is set aside for its model: sending it away would free nothing for another."""
        return any(self._ledger.earmarked(claim) for claim in _claims(replica))

    def seats(self, replica: Replica, most: int) -> tuple[Seat, ...]:
        """Where it could be; once it has a process, where it is."""
        taken = self._seats.get(replica.key)
        return (taken,) if taken is not None else self._memory.seats(replica.spec, most)

    def asleep(self, replica: Replica) -> Mapping[str, int]:
        """Bytes it would hold asleep, by device."""
        seat = self._seats.get(replica.key)
        return seat.asleep if seat is not None else {}

    # -- what happens ------------------------------------------------------------------------------------

    def turn(self, replica: Replica, seat: Seat, *, pinned: bool) -> bool:
        """Set memory aside and let it start, or wake; `False` where another one was first."""
        if self._ledger.reserve(replica.key, seat.holds, pinned=pinned, draws=_claims(replica)) is not None:
            return False
        if not self._ledger.start(replica.key):
            return False
        self._seats[replica.key] = seat
        replica.turn(seat.gpus)
        return True

    def changed(self, replica: Replica) -> None:
        """Write a change of its state down."""
        match replica.life.state:
            case State.READY:
                self._own(self._measure(replica))
                return
            case State.ASLEEP:
                holding, claims = self._ledger.holding(replica.key), _claims(replica)
                if holding is not None:
                    self._ledger.reserve(replica.key, self.asleep(replica), pinned=holding.pinned, draws=claims)
                self._own(self._measure(replica))
            case State.CRASHED | State.OFF:
                if (pid := replica.run.leader) is not None:
                    self._ended[replica.key] = pid
                self._ledger.release(replica.key)
                self._seats.pop(replica.key, None)
            case _:
                return
        self._have_read()

    def fresh(self, now: float, *, sure: bool = False) -> bool:
        """Whether it is known well enough what others hold; where not, a reading is on its way, and `moved` follows.
        `sure`: the machine's memory is to be known as well as cards are."""
        limit = _STALE if self.cards or sure else 2 * _WATCH
        if not self._ledger.devices or now - self._read <= limit:
            return True
        self._have_read()
        return False

    async def close(self) -> None:
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._next is not None:
            self._next.cancel()
        if self._ledger.holdings():
            # Once more, for whoever looks at the books when all is over.
            with suppress(TimeoutError, OSError):
                async with asyncio.timeout(_LAST):
                    await self._memory.read({})

    # -- readings ----------------------------------------------------------------------------------------

    async def _measure(self, replica: Replica) -> None:
        """What it really holds, now that it is loaded or asleep; ends its turn on its cards."""
        state, pid, key = replica.life.state, replica.run.pid, replica.key
        found: Mapping[str, int] = {}
        try:
            # Whoever woke it is being answered now; looking through all processes would hold that up.
            await asyncio.sleep(_SETTLE)
            if pid is not None and self._ledger.devices and replica.life.state is state:
                found = await self._memory.held(replica.spec, key, pid, asleep=state is State.ASLEEP)
        finally:
            now = replica.life.state
            # One that is sent away already loads no more: its turn is over all the same, however long its answers take.
            if now in (state, State.SLEEPING, State.DRAINING) and self._ledger.holding(key) is not None:
                self._ledger.measured(key, found if now is state else {})
            self._moved()

    def _have_read(self) -> None:
        """Take readings for as long as memory is on its way back, one at least; and again after a while."""
        if self._ledger.devices and self._reading is None:
            self._reading = self._own(self._readings())

    async def _readings(self) -> None:
        since: dict[str, float] = {}
        try:
            while True:
                alive = {one.key: pid for one in self._replicas() if (pid := one.run.pid) is not None}
                await self._memory.read(self._ended | alive)
                now = self._read = self._loop.time()
                late = [one.owner for one in self._ledger.holdings() if one.returning]
                since = {owner: since.get(owner, now) for owner in late}
                self._ended = {owner: pid for owner, pid in self._ended.items() if owner in since}
                self._give_up(since, alive, now)
                self._moved()
                if not late:
                    return
                await asyncio.sleep(_READ)
        finally:
            # Also after a failure: a machine that cannot be read must not stop serving.
            self._read, self._reading = self._loop.time(), None
            if self._next is not None:
                self._next.cancel()
            self._next = self._loop.call_later(_WATCH, self._have_read)

    def _give_up(self, since: Mapping[str, float], alive: Mapping[str, int], now: float) -> None:
        """What is not seen back long after its process is gone is somebody else's; of one that lives it is its own."""
        for owner in [owner for owner, began in since.items() if now - began > _BACK]:
            if owner not in alive:
                _logger.warning("memory of %s was not seen back within %g s", owner, _BACK)
                self._ledger.forget(owner)
            elif (one := self._ledger.holding(owner)) is not None and one.stage is Stage.HELD:
                kept = {device: one.charged.get(device, 0) + size for device, size in one.returning.items()}
                self._ledger.measured(owner, kept)

    def _own(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _logger.error("the memory of this machine could not be read", exc_info=error)
            self._moved()


def _claims(replica: Replica) -> tuple[str, ...]:
    """The set-aside capacity that it may use."""
    return (f"model:{replica.spec.name}",)
