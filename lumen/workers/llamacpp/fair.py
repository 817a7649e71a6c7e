"""PURE: in which order those who wait are admitted. Nothing here knows the time; it is told.

Classes first: of everyone who waits only those of the highest class are looked at. Waiting lifts: a class for every
`_AGE` seconds, so that the lowest is as good as the highest after a while and never starves. Among those of one class
the callers take turns by deficit round robin (Shreedhar and Varghese, 1995): a caller's turn brings it a quantum of
tokens, and it may begin what its credit pays for. What an answer came to cost beyond that is settled when it ends.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

CLASSES = ("low", "normal", "high")
NORMAL = CLASSES.index("normal")
TOP = len(CLASSES) - 1

QUANTUM = 256
"""Tokens that a turn is worth."""

_AGE = 10.0
"""Seconds of waiting that lift by one class."""


class Waiter(Protocol):
    """What the queue sees of an answer that waits."""

    caller: str
    rank: int  # of `CLASSES`
    since: float  # seconds, monotonic: when it came

    @property
    def cost(self) -> int:
        """Tokens that it is charged for, at least 1."""
        ...


W = TypeVar("W", bound=Waiter)


class _Caller(Generic[W]):
    """`lines`: who waits of each class, oldest first. `credit`: tokens that it may still begin in this turn."""

    __slots__ = ("credit", "lines")

    def __init__(self) -> None:
        self.lines: tuple[OrderedDict[int, W], ...] = tuple(OrderedDict() for _ in CLASSES)
        self.credit = 0

    @property
    def empty(self) -> bool:
        return not any(self.lines)

    def head(self, level: int, now: float, skip: Container[W]) -> W | None:
        """The longest waiting of those that have reached class `level`."""
        best: W | None = None
        for line in self.lines:
            for one in line.values():
                if one not in skip:
                    if reached(one, now) >= level and (best is None or one.since < best.since):
                        best = one
                    break
        return best


class FairQueue(Generic[W]):
    """Those who wait. `next` tells whose turn it is, `take` lets it go."""

    def __init__(self, quantum: int = QUANTUM) -> None:
        self._quantum = quantum
        self._callers: OrderedDict[str, _Caller[W]] = OrderedDict()  # the ring; whose turn it is comes first
        self._back: list[W] = []  # were admitted before: they go first, and are not charged again
        self._count = 0

    def __len__(self) -> int:
        return self._count + len(self._back)

    def __iter__(self) -> Iterator[W]:
        """Everyone, in no order worth anything."""
        yield from self._back
        for caller in self._callers.values():
            for line in caller.lines:
                yield from line.values()

    def extend(self, ones: Sequence[W]) -> None:
        """They begin to wait, behind what their caller has waiting already."""
        for one in ones:
            caller = self._callers.get(one.caller)
            if caller is None:
                caller = self._callers[one.caller] = _Caller()
            caller.lines[one.rank][id(one)] = one
            self._count += 1

    def put_back(self, one: W) -> None:
        """It had been admitted and had to make room: it is the next."""
        self._back.insert(0, one)

    def next(self, now: float, skip: Container[W] = ()) -> W | None:
        """Whose turn it is at `now` (seconds, monotonic), but for those in `skip`. Asked again, it is the same one."""
        first = next((one for one in self._back if one not in skip), None)
        if first is not None:
            return first
        level = max((_highest(caller, now, skip) for caller in self._callers.values()), default=-1)
        while level >= 0:
            name, caller = next(iter(self._callers.items()))
            one = caller.head(level, now, skip)
            if one is not None and caller.credit >= one.cost:
                return one
            # Its turn is over. Whoever waits in a lower class keeps what it has, and is given no more.
            if one is not None:
                caller.credit += self._quantum
                if len(self._callers) == 1 and caller.credit < one.cost:
                    caller.credit = one.cost  # alone, it need not wait for its own turns to come round
            self._callers.move_to_end(name)
        return None

    def take(self, one: W) -> None:
        """It is admitted, and charged."""
        if self._drop(one):
            caller = self._callers[one.caller]
            caller.credit -= one.cost
            self._forget(one.caller)

    def remove(self, one: W) -> None:
        """It does not wait any more, and is not charged."""
        if self._drop(one):
            self._forget(one.caller)

    def settle(self, caller: str, extra: int) -> None:
        """What was admitted of `caller` came to cost `extra` tokens more than it was charged (fewer: below 0)."""
        there = self._callers.get(caller)
        if there is not None:
            there.credit -= extra

    def _drop(self, one: W) -> bool:
        """Whether it waited for its first time."""
        if one in self._back:
            self._back.remove(one)
            return False
        del self._callers[one.caller].lines[one.rank][id(one)]
        self._count -= 1
        return True

    def _forget(self, name: str) -> None:
        """Credit is for those who wait: nobody saves it up while away."""
        if self._callers[name].empty:
            del self._callers[name]


def reached(one: Waiter, now: float) -> int:
    """The class that it counts as at `now`, for all its waiting."""
    return min(TOP, one.rank + int(max(now - one.since, 0.0) / _AGE))


def _highest(caller: _Caller[W], now: float, skip: Container[W]) -> int:
    best = -1
    for line in caller.lines:
        one = next((one for one in line.values() if one not in skip), None)
        if one is not None:
            best = max(best, reached(one, now))
    return best
