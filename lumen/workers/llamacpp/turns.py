"""PURE: how long one who comes now would wait for a slot. Nothing here knows the time; it is told.

How fast the line drains is told by how long answers hold a slot: those that ended last, and those that hold one now.
Where `slots` answers hold theirs for D seconds each, one of them ends every D / slots seconds (Little's law). Unlike
the times at which answers ended, that is right after an hour in which nobody asked, too.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from math import ceil

_REMEMBERED = 32
_LONGEST = 60


@dataclass(slots=True, eq=False)
class Turn:
    """One request: whose, of which class, with how many answers. `begun`: when it was given a slot."""

    caller: str
    rank: int
    count: int
    begun: float | None = None


class Turns:
    """Everyone who waits for a slot or holds one, from `join` to `leave`. Times are seconds, monotonic."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._waiting: Counter[tuple[int, str]] = Counter()
        self._running: set[Turn] = set()
        self._held: deque[float] = deque(maxlen=_REMEMBERED)

    def join(self, caller: str, rank: int, count: int) -> Turn:
        """`count` answers of `caller` begin to wait, in class `rank`."""
        self._waiting[rank, caller] += count
        return Turn(caller, rank, count)

    def begin(self, turn: Turn, now: float) -> None:
        """It was given its slots."""
        self._called(turn)
        turn.begun = now
        self._running.add(turn)

    def leave(self, turn: Turn, now: float) -> None:
        """It is over, or does not wait any more."""
        if turn.begun is None:
            self._called(turn)
        else:
            self._running.remove(turn)
            self._held.append(now - turn.begun)

    def wait(self, caller: str, rank: int, now: float) -> float:
        """Seconds after which an answer of `caller`, come now in class `rank`, would likely have a slot.

        Before it go those of a higher class, and of its own class as many of each caller as that has waiting itself.
        """
        free = self._slots - sum(turn.count for turn in self._running)
        mine = self._waiting[rank, caller]
        ahead = sum(
            many if class_ > rank or who == caller else min(many, mine + 1)
            for (class_, who), many in self._waiting.items()
            if class_ >= rank
        )
        return max(ahead + 1 - free, 0) * self._hold(now) / self._slots

    def retry_after(self, caller: str, rank: int, now: float) -> int:
        """Whole seconds after which it is worth to ask again, 1 to 60."""
        return min(max(ceil(self.wait(caller, rank, now)), 1), _LONGEST)

    def _hold(self, now: float) -> float:
        """Seconds that an answer holds its slot; where those that hold one take longer than those before, as these."""
        ended = sum(self._held) / len(self._held) if self._held else 0.0
        begun = [now - turn.begun for turn in self._running if turn.begun is not None]
        return max(ended, sum(begun) / len(begun) if begun else 0.0)

    def _called(self, turn: Turn) -> None:
        place = turn.rank, turn.caller
        self._waiting[place] -= turn.count
        if not self._waiting[place]:
            del self._waiting[place]
