"""Which KV sequence a prompt gets, and how much of it is there already.

A slot is a sequence id of the context: free (empty), live (a running answer) or parked (a finished one whose
cells are still there). Here all slots share the cells (`lanes.py`: where each has its own). Attention walks over every
used cell, whoever it belongs to, so as soon as somebody runs, parked sequences move to a shelf in host memory (a copy
of their cells: about a millisecond a megabyte) and come back when a prompt matches. Between live slots cells are shared
by `copy`, so a prefix costs nothing to branch. Decides over a `Memory` seam of eight calls.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lumen.workers.llamacpp.radix import RadixTree

MIN_REUSE = 16
"""Shorter shared prefixes are computed again: cheaper than the bookkeeping, and it keeps batch shapes alike."""

CLAIM_TAIL = 64
"""A parked sequence that would lose more tokens than this is branched from instead of taken over."""

_SHELF_ENTRIES = 256

_AHEAD = 2 << 20
"""Bytes: what is larger is not copied before it has to be, for whoever comes meanwhile would wait for it."""

State = NDArray[np.uint8]
Fetch = Callable[[], State | None]
"""The cells of a sequence; None where they cannot be had (any more)."""

Stored = tuple[list[int], str, Fetch]
"""Tokens, salt, cells."""


class Memory(Protocol):
    """The part of a context that moves KV cells."""

    def cut(self, slot: int, start: int) -> bool: ...
    def drop(self, slot: int) -> None: ...
    def copy(self, source: int, target: int, end: int) -> bool: ...
    def holds(self, slot: int, end: int) -> bool: ...
    def size(self, slot: int) -> int: ...
    def save(self, slot: int) -> State | None: ...
    def restore(self, slot: int, state: State) -> bool: ...
    def clear(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Shelved:
    """`nbytes`: of the cells, as far as they take memory here; 0: they are elsewhere, and `fetch` brings them."""

    tokens: list[int]
    salt: str
    nbytes: int
    fetch: Fetch


class Shelf:
    """Saved sequences in host memory, the longest unused dropped first. Keys never repeat, and are no slots."""

    def __init__(self, limit: int) -> None:
        self.limit = limit  # bytes
        self._entries: OrderedDict[int, _Shelved] = OrderedDict()
        self._keys = count(1 << 20)
        self.size = 0

    def add(self, tokens: list[int], salt: str, state: State) -> tuple[int | None, list[int]]:
        """Shelve a sequence; returns its key (None: too large) and the keys that had to go for it.

        Entries it goes on from are among those: their tokens are all in the new one.
        """
        if state.nbytes > self.limit:
            return None, []
        gone = [key for key, old in self._entries.items() if old.salt == salt and _begins(tokens, old.tokens)]
        for key in gone:
            self._drop(key)
        while self.size + state.nbytes > self.limit:
            gone.append(next(key for key, old in self._entries.items() if old.nbytes))
            self._drop(gone[-1])
        if len(self._entries) >= _SHELF_ENTRIES:
            gone.append(next(iter(self._entries)))
            self._drop(gone[-1])
        key = next(self._keys)
        self._entries[key] = _Shelved(tokens, salt, state.nbytes, lambda: state)
        self.size += state.nbytes
        return key, gone

    def adopt(self, tokens: list[int], salt: str, fetch: Fetch) -> int | None:
        """Have an entry that takes no memory, as the longest unused; returns its key. None: there are too many."""
        if len(self._entries) >= _SHELF_ENTRIES:
            return None
        key = next(self._keys)
        self._entries[key] = _Shelved(tokens, salt, 0, fetch)
        self._entries.move_to_end(key, last=False)
        return key

    def used(self, key: int) -> bool:
        """Make the entry the most recently used; False: there is none."""
        if key not in self._entries:
            return False
        self._entries.move_to_end(key)
        return True

    def tokens(self, key: int) -> list[int] | None:
        """Of the entry; None: there is none."""
        entry = self._entries.get(key)
        return None if entry is None else entry.tokens

    def get(self, key: int) -> State | None:
        """The cells of the entry, now the most recently used. None: they cannot be had any more, and it is gone."""
        self._entries.move_to_end(key)
        state = self._entries[key].fetch()
        if state is None:
            self._drop(key)
        return state

    def entries(self, but: Container[int]) -> Iterator[Stored]:
        """All but those of these keys, the most recently used first."""
        for key, entry in reversed(self._entries.items()):
            if key not in but:
                yield entry.tokens, entry.salt, entry.fetch

    def _drop(self, key: int) -> None:
        self.size -= self._entries.pop(key).nbytes


def _begins(tokens: list[int], start: list[int]) -> bool:
    n = len(start)
    return n <= len(tokens) and tokens[n - 1] == start[-1] and tokens[:n] == start


class PrefixCache:
    """Owns every slot. `divisible`: sequences can be cut anywhere (not so for recurrent models)."""

    def __init__(self, memory: Memory, slots: int, park_cells: int, shelf: Shelf, divisible: bool = True) -> None:
        """`park_cells`: cells that parked sequences may keep while others run."""
        self._memory = memory
        self._park_cells = park_cells
        self._divisible = divisible
        self._shelf = shelf
        self._tree = RadixTree()
        self._free = list(range(slots - 1, -1, -1))
        self._live: dict[int, tuple[str, list[int]]] = {}  # salt, published tokens
        self._parked: OrderedDict[int, tuple[list[int], str]] = OrderedDict()
        self._copies: dict[int, int] = {}  # of parked slots: under which key the shelf has, or had, the same

    @property
    def parked_cells(self) -> int:
        """Cells of parked sequences; a cell shared between two counts twice."""
        return sum(len(tokens) for tokens, _salt in self._parked.values())

    @property
    def ragged(self) -> bool:
        """Whether `close_ranks` would help."""
        return False

    def close_ranks(self) -> tuple[int, int] | None:
        """Bring live slots closer together; returns the slot that was left and the one taken instead."""
        return None

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
        if not self._live and self._parked.keys().isdisjoint(holders if length else ()):
            self._start_afresh()
        slot = self._reuse(length, holders) if length else -1
        reused = length if slot >= 0 else 0
        if slot < 0:
            slot = self._fresh()
        self._live[slot] = (salt, [])
        if reused:
            self.publish(slot, tokens[:reused])
        self._tidy()
        return slot, reused

    def _start_afresh(self) -> None:
        """Nobody runs: clear the cells, so that a lone answer lies in them from the first on, in order.

        Attention sums in the order of the cells, so only then is the same request the same to the last bit.
        """
        while self.evict():
            continue
        self._memory.clear()

    def _reuse(self, length: int, holders: frozenset[int]) -> int:
        """A slot that holds `length` tokens of what `holders` share, or -1. The cheapest way that works."""
        for slot in reversed([slot for slot in self._parked if slot in holders]):
            tail = len(self._parked[slot][0]) - length
            only = not self._free and len(self._parked) == 1
            if (tail == 0 or (self._divisible and (tail <= CLAIM_TAIL or only))) and self._claim(slot, length):
                return slot
        source = next((slot for slot in holders if slot in self._live or slot in self._parked), -1)
        if self._divisible and source >= 0 and self._memory.holds(source, length):
            target = self._fresh(keep=source)
            if self._memory.copy(source, target, length):
                return target
            self._empty(target)
        return next((slot for key in holders if (slot := self._unshelve(key, length)) >= 0), -1)

    def _claim(self, slot: int, length: int) -> bool:
        """Make a parked slot live with its first `length` tokens; False leaves it parked."""
        tokens, _salt = self._parked[slot]
        if not self._memory.holds(slot, length) or (length < len(tokens) and not self._memory.cut(slot, length)):
            return False
        self._unpark(slot)
        return True

    def _unshelve(self, key: int, length: int) -> int:
        """A fresh slot with the first `length` tokens of a shelved sequence (which stays on the shelf), or -1."""
        tokens = self._shelf.tokens(key)
        whole = tokens is not None and length == len(tokens)
        if tokens is None or not (whole or self._divisible):
            return -1
        state = self._shelf.get(key)
        if state is None:
            self._tree.remove(key)
            return -1
        slot = self._fresh()
        there = self._memory.restore(slot, state) and self._memory.holds(slot, length)
        if there and (whole or self._memory.cut(slot, length)):
            return slot
        self._empty(slot)
        return -1

    def _fresh(self, keep: int = -1) -> int:
        """An empty slot, freed from the longest unused parked one where need be (never `keep`)."""
        if not self._free:
            self._shelve(next(slot for slot in self._parked if slot != keep))
        return self._free.pop()

    def publish(self, slot: int, tokens: list[int]) -> None:
        """`tokens` of a live slot are computed: others may branch from them."""
        if self._divisible:
            salt, _published = self._live[slot]
            self._live[slot] = (salt, tokens)
            self._tree.insert(slot, tokens, salt)

    def park(self, slot: int, tokens: list[int]) -> None:
        """A live slot's answer is done; keep its computed `tokens` for later prompts."""
        salt, _published = self._live.pop(slot)
        if len(tokens) < MIN_REUSE:
            self._empty(slot)
            return
        self._parked[slot] = (tokens, salt)
        self._tree.insert(slot, tokens, salt)
        self._tidy()

    def release(self, slot: int) -> None:
        """Give a live slot up and forget what it held."""
        del self._live[slot]
        self._empty(slot)

    def evict(self) -> bool:
        """Free the cells of the longest unused parked sequence; False where none is parked."""
        if not self._parked:
            return False
        self._shelve(next(iter(self._parked)))
        return True

    def ahead(self) -> bool:
        """While nobody waits for it: copy something to the shelf that the next `take` may have to put there.

        False: there is nothing of that kind, or none that is copied quickly.
        """
        limit = min(_AHEAD, self._shelf.limit)
        for slot in self._in_the_way():
            if self._shelf.tokens(self._copies.get(slot, -1)) is None and self._memory.size(slot) <= limit:
                return self._keep(slot)
        return False

    def _in_the_way(self) -> Iterable[int]:
        """Parked slots that may have to go for the next sequence."""
        return reversed(self._parked)

    def adopt(self, tokens: list[int], salt: str, fetch: Fetch) -> None:
        """A sequence that is kept elsewhere may be reused; `fetch` is asked when it is."""
        key = self._shelf.adopt(tokens, salt, fetch)
        if key is not None:
            self._tree.insert(key, tokens, salt)

    def kept(self) -> Iterator[Stored]:
        """All that is parked and then all that is on the shelf, the most recently used first."""
        for slot in reversed(self._parked):
            yield *self._parked[slot], partial(self._memory.save, slot)
        yield from self._shelf.entries(set(self._copies.values()))

    def _tidy(self) -> None:
        """While somebody runs, parked sequences beyond their share go to the shelf."""
        while self._live and self._parked and self.parked_cells > self._park_cells:
            self.evict()

    def _shelve(self, slot: int) -> None:
        self._keep(slot)
        self._unpark(slot)
        self._empty(slot)

    def _keep(self, slot: int) -> bool:
        """Have a copy of a parked sequence on the shelf, if there is room; whether there is one."""
        if self._shelf.used(self._copies.get(slot, -1)):
            return True
        tokens, salt = self._parked[slot]
        state = self._memory.save(slot) if self._shelf.limit else None
        if state is None:
            return False
        key, gone = self._shelf.add(tokens, salt, state)
        for old in gone:
            self._tree.remove(old)
        if key is None:
            return False
        self._tree.insert(key, tokens, salt)
        self._copies[slot] = key
        return True

    def _unpark(self, slot: int) -> None:
        del self._parked[slot]
        self._copies.pop(slot, None)
        self._tree.remove(slot)

    def _empty(self, slot: int) -> None:
        self._tree.remove(slot)
        self._memory.drop(slot)
        self._free.append(slot)
