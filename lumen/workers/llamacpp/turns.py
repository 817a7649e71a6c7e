"""PURE: how long one who comes now would wait for a slot. Nothing here knows the time; it is told.

How fast the line drains is told by how long answers hold a slot: those that ended last, and those that hold one now.
Where `slots` answers hold theirs for D seconds each, one of them ends every D / slots seconds (Little's law). Unlike
the times at which answers ended, that is right after an hour in which nobody asked, too.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from math import ceil, inf
from statistics import median

_REMEMBERED = 32
_ENOUGH = 4
_LONGEST = 60


def again(wait: float) -> int:
    """Whole seconds after which it is worth to ask again, 1 to 60, where one would have to wait for so many."""
    return min(max(ceil(wait), 1), _LONGEST)


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

    def _hold(self, now: float) -> float:
        """Seconds that an answer holds its slot; where those that hold one take longer than those before, as these."""
        # The first ones may have found everything cold.
        ended = sum(self._held) / len(self._held) if len(self._held) >= _ENOUGH else 0.0
        begun = [now - turn.begun for turn in self._running if turn.begun is not None]
        return max(ended, sum(begun) / len(begun) if begun else 0.0)

    def _called(self, turn: Turn) -> None:
        place = turn.rank, turn.caller
        self._waiting[place] -= turn.count
        if not self._waiting[place]:
            del self._waiting[place]


class Backlog:
    """What is computed one after the other, in the order it came: how long it takes until the next one begins."""

    def __init__(self) -> None:
        self._jobs = self._tokens = 0
        self._ended = -inf
        self._done: deque[tuple[int, float]] = deque(maxlen=_REMEMBERED)

    def join(self, tokens: int) -> None:
        """One more, of so many tokens."""
        self._jobs += 1
        self._tokens += tokens

    def leave(self, tokens: int, since: float, now: float, *, whole: bool) -> None:
        """One that came at `since` is done, or (not `whole`) not wanted any more."""
        self._jobs -= 1
        self._tokens -= tokens
        if whole:
            # Before the one ahead of it had ended it could not begin.
            self._done.append((tokens, now - max(since, self._ended)))
            self._ended = now

    def wait(self) -> float:
        """Seconds after which one that comes now likely begins; 0 where too little is known.

        By what the last ones took, each or a token, whichever is less: of short ones most is not for their tokens, and
        nobody is to be refused for a guess. The median, for one of them may have found everything cold.
        """
        if len(self._done) < _ENOUGH:
            return 0.0
        each = median(seconds for _, seconds in self._done)
        a_token = median(seconds / max(tokens, 1) for tokens, seconds in self._done)
        return min(self._jobs * each, self._tokens * a_token)
