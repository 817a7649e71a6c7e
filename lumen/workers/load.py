"""What one start of a replica carries: the leases out on it, and the signs of life they bring."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from lumen.workers.probe import Address

_REMEMBERED = 32
LONGEST_WAIT = 60.0
"""Seconds: nobody is told to come back later than this."""


class Load:
    """Counts leases. One per start: a lease on a process that crashed does not weigh on its successor."""

    def __init__(self, freed: Callable[[], None], clock: Callable[[], float]) -> None:
        self.in_flight = 0
        self.good = clock()  # when it last showed that it works
        self.used = 0.0  # when the last request on it ended
        self.suspect = False  # a request on it failed since then
        self.alarm = asyncio.Event()  # set when `suspect` is
        self.releases: deque[float] = deque(maxlen=_REMEMBERED)
        self._freed = freed
        self._clock = clock

    def take(self) -> None:
        self.in_flight += 1

    def sign(self, ok: bool) -> None:
        """A request on it went well, or did not."""
        if ok:
            self.good = self._clock()
        self.suspect = not ok
        if not ok:
            self.alarm.set()

    def give_back(self) -> None:
        self.in_flight -= 1
        self.used = self._clock()
        self.releases.append(self.used)
        self._freed()


class Lease:
    """A ready replica, held for one request. `release` it, once or more often; only the first counts.

    `socket`: its UNIX socket, or `None` where `base_url` names its loopback port. `served`: the name by
    which the engine itself knows the model. `queued`, `woke`: seconds that the request waited for its turn, and for
    the replica to start or wake.
    """

    __slots__ = ("_load", "base_url", "model", "queued", "replica", "served", "socket", "woke")

    def __init__(self, load: Load, address: Address, model: str, replica: int, served: str) -> None:
        load.take()
        self._load: Load | None = load
        self.socket: Path | None = address.socket
        self.base_url = address.base_url
        self.model = model
        self.replica = replica
        self.served = served
        self.queued = self.woke = 0.0

    def touch(self) -> None:
        """Tell that bytes of an answer came: the replica lives, however long this answer takes."""
        if self._load is not None:
            self._load.sign(True)

    def release(self, ok: bool | None = None) -> None:
        """Give it back. `ok`: whether the replica served well; `False` has it probed at once; `None`: no judgement."""
        load, self._load = self._load, None
        if load is None:
            return
        if ok is not None:
            load.sign(ok)
        load.give_back()


def parts(asked: float, begun: float, loaded: float, now: float) -> tuple[float, float]:
    """Of the wait of a request since `asked`: the seconds in a queue, and those in which its replica, begun to be
    started or woken at `begun`, came to serve at `loaded`. Pure."""
    woke = max(loaded - max(asked, begun), 0.0)
    return max(now - asked - woke, 0.0), woke


class Line:
    """How fast the line behind slots that are all taken moves, by what has ended since they were. Pure."""

    __slots__ = ("_since",)

    def __init__(self) -> None:
        self._since: float | None = None

    def wait(self, in_flight: int, at_once: int, releases: Callable[[], Sequence[float]], now: float) -> float:
        """Seconds after which a request that comes at `now` likely has its turn.

        Ask whenever one comes: that tells since when there is a line. What ended before says nothing, for who knows how
        long nobody asked.

        Args:
            in_flight: requests there are. at_once: of these, how many are answered at a time.
            releases: tells when the last requests ended, in order.
        """
        ahead = in_flight - at_once
        if ahead < 0:
            self._since = None
            return 0.0
        if self._since is None:
            self._since = now
        lately = releases()
        ended = [time for time in lately if time >= self._since]
        # Those before the first that is remembered are forgotten.
        begun, many = (ended[0], len(ended)) if ended and len(ended) == len(lately) else (self._since, len(ended) + 1)
        return (ahead + 1) * (now - begun) / many
