"""Which KV sequence a prompt gets, and how much of it is there already.

A slot is a sequence id of the context: free (empty), live (a running answer) or parked (a finished one, kept
for its prefix). Cells are shared between slots by `copy`, so a prefix costs nothing to branch. Decides over a
`Memory` seam of four calls.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

from lumen.workers.llamacpp.radix import RadixTree

MIN_REUSE = 16
"""Shorter shared prefixes are computed again: cheaper than the bookkeeping, and it keeps batch shapes alike.
"""

CLAIM_TAIL = 64
"""A parked sequence that would lose more tokens than this is branched from instead of taken over."""


class Memory(Protocol):
    """The part of a context that moves KV cells."""

    def cut(self, slot: int, start: int) -> bool: ...
    def drop(self, slot: int) -> None: ...
    def copy(self, source: int, target: int, end: int) -> None: ...
    def holds(self, slot: int, end: int) -> bool: ...


class PrefixCache:
    """Owns every slot. `divisible`: sequences can be cut anywhere (not so for recurrent models)."""

    def __init__(self, memory: Memory, slots: int, park_cells: int, divisible: bool = True) -> None:
        self._memory = memory
        self._park_cells = park_cells
        self._divisible = divisible
        self._tree = RadixTree()
        self._free = list(range(slots - 1, -1, -1))
        self._live: dict[int, tuple[str, int]] = {}  # salt, published tokens
        self._parked: OrderedDict[int, tuple[list[int], str]] = OrderedDict()

    @property
    def cells(self) -> int:
        """KV cells held by parked sequences and by what live ones have published; a shared cell counts once."""
        return self._tree.size

    def published(self, slot: int) -> int:
        """How many tokens of a live slot `cells` already counts."""
        return self._live[slot][1]

    def available(self) -> bool:
        """Whether `take` can serve: some slot is free or parked."""
        return bool(self._free or self._parked)

    def match(self, tokens: list[int], salt: str) -> int:
        """How many leading `tokens` `take` would reuse at best."""
        length, _holders = self._tree.match(tokens, salt)
        return self._worth(length, tokens)

    def _worth(self, length: int, tokens: list[int]) -> int:
        length = min(length, len(tokens) - 1)  # one token is left to decode: it gives the logits to sample from
        return length if length >= MIN_REUSE else 0

    def take(self, tokens: list[int], salt: str, reuse: bool = True) -> tuple[int, int]:
        """A live slot for `tokens` and how many of them it already holds. Only after `available()`."""
        length, holders = self._tree.match(tokens, salt) if reuse else (0, frozenset[int]())
        length = self._worth(length, tokens)
        slot, reused = self._reuse(length, holders) if length else (-1, 0)
        if slot < 0:
            slot, reused = self._fresh(), 0
        self._live[slot] = (salt, 0)
        if reused:
            self.publish(slot, tokens[:reused])
        return slot, reused

    def _reuse(self, length: int, holders: frozenset[int]) -> tuple[int, int]:
        parked = [slot for slot in self._parked if slot in holders]
        for slot in reversed(parked):
            tail = len(self._parked[slot][0]) - length
            if (tail == 0 or (tail <= CLAIM_TAIL and self._divisible)) and self._claim(slot, length):
                return slot, length
        if not self._divisible:
            return -1, 0
        source = next((slot for slot in holders if self._memory.holds(slot, length)), -1)
        if source < 0:
            return -1, 0
        if not self._free and list(self._parked) == [source]:
            return (source, length) if self._claim(source, length) else (-1, 0)
        target = self._fresh(keep=source)
        self._memory.copy(source, target, length)
        return target, length

    def _claim(self, slot: int, length: int) -> bool:
        """Make a parked slot live with its first `length` tokens; False leaves it parked."""
        tokens, _salt = self._parked[slot]
        if not self._memory.holds(slot, length) or (length < len(tokens) and not self._memory.cut(slot, length)):
            return False
        self._unpark(slot)
        return True

    def _fresh(self, keep: int = -1) -> int:
        """An empty slot, freed from the longest unused parked one where need be (never `keep`)."""
        if not self._free:
            victim = next(slot for slot in self._parked if slot != keep)
            self._evict(victim)
        return self._free.pop()

    def publish(self, slot: int, tokens: list[int]) -> None:
        """`tokens` of a live slot are computed: others may branch from them."""
        if self._divisible:
            salt, _published = self._live[slot]
            self._live[slot] = (salt, len(tokens))
            self._tree.insert(slot, tokens, salt)

    def park(self, slot: int, tokens: list[int]) -> None:
        """A live slot's answer is done; keep its computed `tokens` for later prompts."""
        salt, _published = self._live.pop(slot)
        if len(tokens) < MIN_REUSE or len(tokens) > self._park_cells:
            self._empty(slot)
            return
        self._parked[slot] = (tokens, salt)
        self._tree.insert(slot, tokens, salt)
        live = sum(published for _salt, published in self._live.values())
        while self.cells - live > self._park_cells and self.evict():
            continue

    def release(self, slot: int) -> None:
        """Give a live slot up and forget what it held."""
        del self._live[slot]
        self._empty(slot)

    def evict(self) -> bool:
        """Forget the longest unused parked sequence; False where none is parked."""
        if not self._parked:
            return False
        self._evict(next(iter(self._parked)))
        return True

    def clear(self) -> None:
        """Forget every parked sequence."""
        while self.evict():
            continue

    def _evict(self, slot: int) -> None:
        self._unpark(slot)
        self._empty(slot)

    def _unpark(self, slot: int) -> None:
        del self._parked[slot]
        self._tree.remove(slot)

    def _empty(self, slot: int) -> None:
        self._tree.remove(slot)
        self._memory.drop(slot)
        self._free.append(slot)
