"""Which replica a prompt goes to, PURE: where its beginning was computed already, unless that one is too busy.

A prompt is cut into blocks, each hashed together with all before it, so that equal hashes mean equal beginnings.
Where most of a prompt is known, it follows its blocks; where little is, rendezvous hashing of the whole spreads
prompts evenly and moves few of them when a replica comes or goes. Either way no replica takes more than a bounded
share of the load.

Source: rendezvous hashing, D. Thaler and C. Ravishankar, IEEE/ACM Transactions on Networking 6 (1998); the bound on
the load, V. Mirrokni, M. Thorup and M. Zadimoghaddam, "Consistent hashing with bounded loads", SODA 2018.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

BLOCK = 1024
"""Characters of a text that make a block; the rest of it makes a shorter one."""

MOST_BLOCKS = 64
"""Blocks of one prompt that are looked at; what lies behind them does not matter for the choice."""

FOLLOWED = 0.5
"""A prompt goes where its beginning is if that is at least this much of it."""

BOUND = 1.5
"""No replica takes more than this many times the mean load, while another has less."""

_REMEMBERED = 8192


@dataclass(frozen=True, slots=True)
class Block:
    """`hash`: of the prompt up to the end of this block. `size`: characters of the prompt up to there."""

    hash: int
    size: int


@dataclass(frozen=True, slots=True)
class Busy:
    """A ready replica. `key`: of this start of it, since its successor begins with an empty cache."""

    key: int
    in_flight: int
    slots: int


def blocks(parts: Iterable[tuple[str, str]]) -> list[Block]:
    """The blocks of a prompt given as (role, text) parts. Hashes hold within one process only."""
    made: list[Block] = []
    before = size = 0
    for role, text in parts:
        for start in range(0, max(len(text), 1), BLOCK):
            if len(made) == MOST_BLOCKS:
                return made
            piece = text[start : start + BLOCK]
            before = hash((before, role, piece))
            size += len(piece)
            made.append(Block(before, size))
    return made


class Affinity:
    """Where the beginnings of prompts were computed, the longest unused forgotten first."""

    def __init__(self, remembered: int = _REMEMBERED) -> None:
        """`remembered`: how many blocks."""
        self._most = remembered
        self._holders: OrderedDict[int, tuple[int, ...]] = OrderedDict()

    def choose(self, prompt: Sequence[Block], replicas: Sequence[Busy]) -> int:
        """The place in `replicas` (one at least) of the one that this prompt goes to; it is remembered there."""
        open_ = _open(replicas)
        place = self._follow(prompt, replicas, open_)
        if place is None:
            place = _rendezvous(prompt, replicas, open_)
        self._note(prompt, replicas[place].key)
        return place

    def forget(self, key: int) -> None:
        """That start of a replica is over."""
        for block, keys in list(self._holders.items()):
            if key in keys:
                left = tuple(one for one in keys if one != key)
                if left:
                    self._holders[block] = left
                else:
                    del self._holders[block]

    def _follow(self, prompt: Sequence[Block], replicas: Sequence[Busy], open_: Sequence[int]) -> int | None:
        """The least busy of those that hold the longest known beginning, if that is worth following."""
        for block in reversed(prompt):
            if block.size < FOLLOWED * prompt[-1].size:
                return None
            holders = self._holders.get(block.hash, ())
            there = [place for place in open_ if replicas[place].key in holders]
            if there:
                return min(there, key=lambda place: (_share(replicas[place]), replicas[place].key))
        return None

    def _note(self, prompt: Sequence[Block], key: int) -> None:
        holders = self._holders
        for block in prompt:
            known = holders.get(block.hash, ())
            if key not in known:
                holders[block.hash] = (*known, key)
            holders.move_to_end(block.hash)
        while len(holders) > self._most:
            holders.popitem(last=False)


def _open(replicas: Sequence[Busy]) -> list[int]:
    """Places of the replicas within the bound on the load; never none.

    The bound counts the request that is being placed, so that one alone fits everywhere. A replica with free slots
    and next to nothing to do is never too busy: at small counts the mean says little.
    """
    total = sum(one.in_flight for one in replicas) + 1
    slots = sum(max(one.slots, 1) for one in replicas)
    found = []
    for place, one in enumerate(replicas):
        fair = math.ceil(BOUND * total * max(one.slots, 1) / slots)
        if one.in_flight < max(fair, 2):
            found.append(place)
    return found


def _rendezvous(prompt: Sequence[Block], replicas: Sequence[Busy], open_: Sequence[int]) -> int:
    if not prompt:
        return min(open_, key=lambda place: (_share(replicas[place]), replicas[place].key))
    whole = prompt[-1].hash
    return max(open_, key=lambda place: _mix(whole, replicas[place].key))


def _share(replica: Busy) -> float:
    return replica.in_flight / max(replica.slots, 1)


def _mix(block: int, key: int) -> int:
    """A number that looks drawn at random for each pair: the finaliser of SplitMix64 (G. Steele et al., OOPSLA 2014).

    Python's own hash of a pair of small integers is too regular to compare by size.
    """
    value = (block + key * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return value ^ (value >> 31)
