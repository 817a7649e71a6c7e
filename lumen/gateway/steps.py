"""In which order a plan is tried, and what of it is out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lumen.core.breaker import Breaker, State
from lumen.gateway.known import Known

_CLOSED = State.CLOSED


@dataclass(frozen=True, slots=True)
class Out:
    """A target that is out for now. `until`: epoch seconds; infinite where only an operator ends it."""

    state: State
    since: float
    until: float
    why: str


class Steps:
    """The order to try a plan in. Each target is looked at only when its turn comes.

    Those that are out are left for the end, the one due soonest first, and are to be forced. Drained ones never come.
    """

    __slots__ = ("_at", "_clock", "_last", "_names", "_offset", "_skipped", "_targets")

    def __init__(
        self, targets: Mapping[str, Known], names: Sequence[str], clock: Callable[[], float], offset: float
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
