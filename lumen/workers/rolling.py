"""Which replicas of a model to start and which to stop, PURE: the rolling change in one function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Seen:
    """A replica that is not being stopped. `current`: it runs what is wanted now."""

    index: int
    current: bool
    ready: bool


@dataclass(frozen=True, slots=True)
class Moves:
    """`start`: indices of new replicas; `stop`: positions in the sequence that was looked at."""

    start: tuple[int, ...]
    stop: tuple[int, ...]


def moves(replicas: Sequence[Seen], count: int, *, beside: bool, ending: bool) -> Moves:
    """What brings `replicas` nearer to `count` current ones.

    An outdated replica that serves is stopped only once a current one is ready in its place. `beside`: old
    and new may run at the same time; where not, the old ones go first. `ending`: some are still ending.
    """
    current = [place for place, seen in enumerate(replicas) if seen.current]
    outdated = [place for place, seen in enumerate(replicas) if not seen.current]
    # Of those that are too many, the ones not serving go first, then the highest index.
    surplus = sorted(current, key=lambda place: (replicas[place].ready, -replicas[place].index))
    stop = surplus[: max(len(current) - count, 0)]
    ready = sum(replicas[place].ready for place in current if place not in stop)
    serving = [place for place in outdated if replicas[place].ready]
    kept = serving[: max(count - ready, 0)] if beside else []
    stop += [place for place in outdated if place not in kept]
    if not beside and (outdated or ending):
        return Moves((), tuple(stop))
    taken = {replicas[place].index for place in current}
    free = [index for index in range(count + len(taken)) if index not in taken]
    return Moves(tuple(free[: max(count - len(current), 0)]), tuple(stop))
