"""How far a download is: bytes, total and a smoothed rate, told at most ten times a second."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

# (bytes done, total bytes or None where the server does not say, bytes a second over the last seconds)
Progress = Callable[[int, int | None, float], None]

_EVERY = 0.1
_WINDOW = 5.0


class Meter:
    """Counts the bytes of one or more files. `now` is a monotonic clock in seconds."""

    def __init__(self, report: Progress | None, now: Callable[[], float], total: int | None = None) -> None:
        self._report = report
        self._now = now
        self.total = total
        self.done = 0
        self._fetched = 0
        self._marks: deque[tuple[float, int]] = deque([(now(), 0)], maxlen=256)
        self._told = -_EVERY

    def fetched(self, count: int) -> None:
        """`count` bytes came over the network; negative where they were thrown away."""
        self._fetched += max(0, count)
        self.already(count)

    def already(self, count: int) -> None:
        """`count` bytes were here before: they count as done, not towards the rate."""
        self.done += count
        now = self._now()
        if self._report is not None and now - self._told >= _EVERY:
            self._tell(now)

    def finish(self) -> None:
        """Tell the last state whatever the time."""
        if self._report is not None:
            self._tell(self._now())

    def _tell(self, now: float) -> None:
        self._marks.append((now, self._fetched))
        while len(self._marks) > 2 and now - self._marks[0][0] > _WINDOW:
            self._marks.popleft()
        start, before = self._marks[0]
        rate = (self._fetched - before) / (now - start) if now > start else 0.0
        self._told = now
        if self._report is not None:
            self._report(self.done, self.total, rate)
