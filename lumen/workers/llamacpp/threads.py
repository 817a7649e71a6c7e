"""PURE: on how many threads a decode runs fastest, learned from how long decodes take.

Threads of a decode meet after every operation. For a small model or batch that costs more than it gains, and where
other programs want the processors too, a meeting waits until all of them have theirs again: two threads may then be a
hundred times slower than one. No rule of thumb knows this beforehand, so now and then another number is tried.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_TRIES = 3
_BETTER = 0.95
"""What a trial must take of the present time to be kept."""
_FORGETS = 0.005
"""What the last decode counts for in the average: a stall weighs as much as it costs over some hundred decodes."""
_FIRST = 8
_TRIED = 100
"""Decodes that what is known counts for at first, and after a trial."""
_SLOW = 2.0
_HOPELESS = 3.0
_WAKING = 30.0
"""Times the present time after which a trial ends at once; and those of its first decode, which is not judged: threads
have to be woken for it."""
_BETWEEN = 30
"""Decodes of a size between its trials, at least: prompts come seldom, and should not mostly be trials."""
_PAUSE = 0.5
_PAUSE_LIMIT = 60.0
"""Seconds between trials: at first, and at most. Each that fails doubles them."""
_DEAR = 100.0
"""Seconds without trials for each second that the last one cost."""


@dataclass(slots=True)
class _Size:
    """What is known of batches of about one size. `level`: the place of the number of threads in the ladder."""

    level: int
    seconds: float  # of one decode at `level`, on average of late
    known: int = 0  # decodes that this is the average of
    trial: int | None = None
    taken: list[float] = field(default_factory=list)
    up: bool = False  # whether the next trial is of more threads
    pause: float = _PAUSE
    due: float = 0.0  # when to try the next, however well it goes
    since: float = 0.0  # when the last trial ended
    slow: int = 0  # decodes in a row
    seen: int = 0  # decodes since the last trial


class Tuner:
    """`choose` before each decode, `learn` after it. `most`: threads there are."""

    def __init__(self, most: int, one_row: float, short: float) -> None:
        """`one_row`: seconds of a decode of one row on one thread; shorter ones than `short` begin with one thread."""
        self._ladder = [1]
        while self._ladder[-1] < most:
            self._ladder.append(min(2 * self._ladder[-1], most))
        self._one_row = one_row
        self._short = short
        self._sizes: dict[int, _Size] = {}
        self._size = _Size(0, 0.0)  # of the decode that `choose` was last asked about

    def choose(self, rows: int, now: float) -> int:
        """Threads for a decode of `rows` rows at `now` (seconds, monotonic)."""
        size = self._sizes.get(rows.bit_length())
        if size is None:
            level = 0 if rows * self._one_row < self._short else len(self._ladder) - 1
            size = self._sizes[rows.bit_length()] = _Size(level, 0.0, due=now + _PAUSE)
        if size.trial is None and now >= size.due and size.seen >= _BETWEEN:
            size.trial = self._neighbour(size)
        self._size = size
        return self._ladder[size.level if size.trial is None else size.trial]

    def _neighbour(self, size: _Size) -> int | None:
        """What to try next: one more step up the ladder, or down, in turn."""
        if len(self._ladder) == 1:
            return None
        size.up = not size.up
        if size.level == 0 or (size.up and size.level < len(self._ladder) - 1):
            return size.level + 1
        return size.level - 1

    def learn(self, rows: int, seconds: float, now: float) -> None:
        """The decode that `choose` was last asked about took `seconds`, until `now`."""
        size = self._size
        if size.trial is not None:
            self._judge(size, seconds, now)
            return
        size.seen += 1
        size.known += 1
        if size.known <= _TRIES:  # threads had to be woken for one of them
            size.seconds = min(size.seconds or seconds, seconds)
        # Twice suddenly slow, or slower than one thread would be: fewer threads may help, and cost little to try.
        size.slow = size.slow + 1 if seconds > _SLOW * size.seconds else 0
        most = _SLOW if size.known > _TRIES else _WAKING
        poor = seconds > most * rows * self._one_row and now >= size.since + size.pause
        if size.level and (poor or size.slow >= 2):
            size.slow, size.seen, size.up, size.due = 0, _BETWEEN, True, now
        size.seconds += max(_FORGETS, 1.0 / (_FIRST + size.known)) * (seconds - size.seconds)

    def _judge(self, size: _Size, seconds: float, now: float) -> None:
        size.taken.append(seconds)
        most = _HOPELESS if len(size.taken) > 1 else _WAKING
        if len(size.taken) <= _TRIES and seconds < most * size.seconds:
            return
        judged = size.taken[1:] or size.taken
        middle = sorted(judged)[len(judged) // 2]
        if middle < _BETTER * size.seconds and size.trial is not None:
            size.level, size.seconds, size.known, size.pause = size.trial, middle, _TRIED, _PAUSE
        else:
            size.pause = min(2 * size.pause, _PAUSE_LIMIT)
        lost = sum(size.taken) - len(size.taken) * size.seconds
        size.due = now + max(size.pause, _DEAR * lost)
        size.since, size.seen, size.trial, size.taken = now, 0, None, []
