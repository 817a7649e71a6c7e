"""The prefix cache where every sequence has cells of its own: its lane.

A row then attends over its own cells only, and a parked sequence costs nobody anything, so it stays in its lane until
the lane is needed. What it costs instead: a prefix that two lanes share is copied, not shared; and llama.cpp computes
rows of neighbouring lanes in one go but starts anew at every gap, so live lanes should be the lowest ones, in a row.
"""

from __future__ import annotations

from collections.abc import Iterable

from lumen.workers.llamacpp.context import Context
from lumen.workers.llamacpp.prefix import CLAIM_TAIL, PrefixCache, Shelf


class LaneCache(PrefixCache):
    """`PrefixCache` over lanes: same promises, other ways."""

    @property
    def ragged(self) -> bool:
        """Whether a lane between the live ones is not."""
        return bool(self._live) and max(self._live) >= len(self._live)

    def close_ranks(self) -> tuple[int, int] | None:
        """Move the sequence of the highest live lane to the lowest lane that is not; returns both lanes.

        None: nothing to move, or it cannot be moved.
        """
        if not self.ragged:
            return None
        source = max(self._live)
        target = self._fresh()
        state = self._memory.save(source)  # only now: a lane may be large, and so was what made room on the shelf
        if state is None or not self._memory.restore(target, state):
            self._empty(target)
            return None
        salt, published = self._live.pop(source)
        self._empty(source)
        self._live[target] = (salt, [])
        if published:
            self.publish(target, published)
        return source, target

    def _start_afresh(self) -> None:
        """A lane's cells are in order whoever used it before."""

    def _tidy(self) -> None:
        """Nobody attends over parked cells."""

    def _in_the_way(self) -> Iterable[int]:
        return self._parked.keys() & {self._lowest()}

    def _lowest(self) -> int:
        """The lowest lane that is not live."""
        return next(lane for lane in range(len(self._live) + 1) if lane not in self._live)

    def _fresh(self, keep: int = -1) -> int:
        lane = self._lowest()
        if lane in self._parked:
            self._shelve(lane)
        self._free.remove(lane)
        return lane

    def _reuse(self, length: int, holders: frozenset[int]) -> int:
        lane = self._lowest()
        if lane in self._parked and lane in holders and self._cut_back(lane, length):
            return lane
        known = [slot for slot in holders if slot in self._parked or slot in self._live]
        there = [slot for slot in known if self._usable(slot, length)]
        if there:
            # A copy takes the whole source along, so a short one is best; one that ends here is not needed any more.
            source = min(there, key=self._held)
            target = self._fresh()
            if self._memory.copy(source, target, length):
                if source in self._parked and self._held(source) - length <= CLAIM_TAIL:
                    self._unpark(source)
                    self._empty(source)
                return target
            self._empty(target)
        return next((slot for key in holders if (slot := self._unshelve(key, length)) >= 0), -1)

    def _cut_back(self, lane: int, length: int) -> bool:
        """Take the sequence parked in `lane` over, a copy of it on the shelf if it loses much by that."""
        if not self._usable(lane, length):
            return False
        if self._held(lane) - length > CLAIM_TAIL:
            self._keep(lane)
        return self._claim(lane, length)

    def _usable(self, slot: int, length: int) -> bool:
        whole = slot in self._parked and self._held(slot) == length
        return (whole or self._divisible) and self._memory.holds(slot, length)

    def _held(self, slot: int) -> int:
        """Tokens a slot is known to hold."""
        if slot in self._parked:
            return len(self._parked[slot][0])
        return len(self._live[slot][1])


def new_cache(context: Context, park: tuple[int, int]) -> PrefixCache:
    """The cache that fits `context`. `park`: cells, and bytes of host memory, for prefixes of finished answers."""
    cells, shelf = park
    kind = LaneCache if context.shape.lanes else PrefixCache
    return kind(context, context.shape.n_seq, cells, Shelf(shelf), divisible=not context.model.recurrent)
