"""What is known of a request once it is over: the one value that logs, metrics and the dashboard are made from."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from lumen.gateway.attempt import Record
from lumen.wire.answers import Usage

# Seconds that a request which is over may wait to be told of, and requests told of together at most.
_LATE = 0.1
_TOGETHER = 2_000


class Settled(Struct, gc=False):
    """One request. Times are seconds: `at` of the wall clock, `started` and `ended` of the event loop's.

    `outcome`: ok, cancelled, or the code of the error. `cost`: pico-dollars. `key`: the id of the key, never the key.
    What stands behind `cost` is taken from the attempts.
    """

    id: str
    operation: str
    route: str
    key: str | None
    at: float
    started: float
    ended: float
    outcome: str
    stream: bool
    attempts: list[Record]
    cost: int = 0
    # Of the attempts: the target that answered last, what it counted, and seconds to the first part of the answer.
    target: str = ""
    usage: Usage | None = None
    first_token: float | None = None

    def __post_init__(self) -> None:
        if self.attempts:
            last = self.attempts[-1]
            self.target, self.usage = last.target, last.usage
        for attempt in self.attempts:
            if attempt.first_token is not None:
                self.first_token = attempt.first_token - self.started
                break

    @property
    def seconds(self) -> float:
        return self.ended - self.started

    @property
    def splices(self) -> list[str]:
        """The rungs on which the answer went on elsewhere."""
        return [attempt.rung for attempt in self.attempts if attempt.rung is not None]


class Observer(Protocol):
    """Told of every request that is over, on the event loop: what takes time belongs elsewhere."""

    def add(self, settled: Settled) -> None: ...


class Taker(Protocol):
    """Told of many requests together, in the order in which they ended."""

    def take(self, settled: Sequence[Settled]) -> None: ...


class Later:
    """Tells takers of many requests together, at most 0.1 s late: work done in a row is done faster.

    Whoever reads what they know calls `flush` before.
    """

    def __init__(self, takers: Sequence[Taker]) -> None:
        self._takers = takers
        self._held: list[Settled] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, settled: Settled) -> None:
        self._held.append(settled)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LATE, self.flush)
        elif len(self._held) >= _TOGETHER:
            self.flush()

    def flush(self) -> None:
        """Tell them of all that are held."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        held, self._held = self._held, []
        for taker in self._takers if held else ():
            taker.take(held)
