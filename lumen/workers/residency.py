"""Which replicas may hold memory, PURE: who starts, who sleeps or ends for it, who is left alone. Bytes and seconds.

A replica is resident (it can answer), asleep (its process lives, its device memory is free) or off. It is sent down
by idleness, or because another model is asked for and does not fit. Then the cheapest go: by what it costs to bring
one back times the odds that it will be wanted, for each byte that it frees; never a busy or a pinned one, never more
than are needed, and never within its stay: so mixed traffic over models that do not fit together is served a stay
at a time rather than swapped at every request.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from lumen.config.schema import Model

LONGEST_STAY = 60.0
"""Seconds: a stay follows the cost of a swap, but not beyond this."""

CLOSED = 30.0
"""Seconds that a busy replica takes nothing new for another model's sake, then as long that it does: its own callers
must not wait for one endless answer."""

_BUSY = 0.25
"""Seconds after which a busy replica is looked at again at the earliest."""

Bytes = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Rules:
    """What the configuration says of one model, made whole.

    `boot`: replicas it starts with. `floor`: what idleness leaves awake. `low`, `high`: what load makes of them while
    it is in use. `first`: how many come when it is asked for while it is off.
    """

    boot: int
    floor: int
    low: int
    high: int
    first: int
    keep_alive: float | None
    idle_after: float | None
    stay: float
    pinned: bool
    prewarm: bool = False

    @classmethod
    def of(cls, model: Model) -> Rules:
        least, most = model.min_replicas, model.max_replicas
        high = model.replicas if most is None else most
        idles = model.idle_after is not None
        return cls(
            boot=least if least is not None else 0 if idles else model.replicas,
            floor=least or (model.replicas if model.pinned else 0),
            low=max(1, model.replicas if least is None else least),
            high=high,
            first=max(1, min(model.replicas, high)),
            keep_alive=model.keep_alive,
            idle_after=model.idle_after,
            stay=model.min_residency,
            pinned=model.pinned,
            prewarm=model.prewarm,
        )


@dataclass(frozen=True, slots=True)
class Held:
    """One replica that holds memory.

    `busy`: it has answers under way, or is between two states. `leaving`: it was told to go already; what it holds is
    on its way back. `outdated`: a newer one of its model is to take its place. `since`: when it was loaded or woken;
    `used`: when its last request ended. `stay`: seconds from `since` that it is not sent away. `closed`: since when it
    has been kept from taking new requests, if it is.
    `holds`: bytes by device; `asleep`: what it would hold asleep, `None` where it cannot sleep. `wake`, `rouse`:
    seconds to bring it back from off and from asleep. `odds`: that it is asked for again soon.
    """

    key: str
    model: str
    holds: Bytes
    awake: bool = True
    busy: bool = False
    leaving: bool = False
    outdated: bool = False
    pinned: bool = False
    since: float = 0.0
    used: float = 0.0
    stay: float = 0.0
    closed: float | None = None
    asleep: Bytes | None = None
    wake: float = 1.0
    rouse: float = 0.1
    odds: float = 0.0


@dataclass(frozen=True, slots=True)
class Want:
    """A replica that waits for memory, to start or to wake.

    `urgent`: requests wait for it; the others take what is free and send nobody away. `since`: the oldest of those
    requests, else when it began to wait. `needs`: alternatives, the better one first: bytes by device, beyond what it
    holds already and what is set aside for it; below zero where more is set aside than it takes, which says nothing of
    whether others have that already.
    """

    key: str
    model: str
    needs: tuple[Bytes, ...]
    urgent: bool = True
    since: float = 0.0


class Down(Enum):
    SLEEP = "sleep"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now. `starts`: want → which of its alternatives. `down`: replica → how it goes. `closed`: replicas
    that take nothing new until they can go. `hopeless`: wants that would not fit even with all others gone. `again`:
    when to look next, if nothing happens before."""

    starts: Mapping[str, int]
    down: Mapping[str, Down]
    closed: frozenset[str]
    hopeless: frozenset[str]
    again: float


def stay(least: float, wake: float) -> float:
    """Seconds that a replica stays once it is loaded: twice what loading it took, so that at most a third of the time
    goes into swapping."""
    return max(least, min(2.0 * wake, LONGEST_STAY))


# -- idleness ------------------------------------------------------------------------------------------------------


def idle(rules: Rules, replicas: Sequence[Held], now: float) -> tuple[dict[str, Down], float]:
    """Which replicas of one model go for want of requests, and when to look again. `replicas`: all that are not
    leaving, of a model that nobody waits for. The longest unused go first."""
    going: dict[str, Down] = {}
    again = math.inf
    spare = len(replicas) - rules.floor
    awake = sum(one.awake for one in replicas) - rules.floor
    # Of equals the last of them first.
    for one in sorted(reversed(replicas), key=lambda one: (one.used, one.since)):
        if one.busy:
            # When it ends nobody tells us; before this nothing can be due.
            again = min(again, now + max(_shortest(rules), _BUSY))
            continue
        rested, least = max(one.used, one.since), one.since + rules.stay
        if rules.idle_after is not None and spare > 0 and (awake > 0 or not one.awake):
            due = max(rested + rules.idle_after, least)
            if now >= due:
                going[one.key] = Down.STOP
                spare, awake = spare - 1, awake - one.awake
                continue
            again = min(again, due)
        if rules.keep_alive is not None and one.awake and one.asleep is not None and awake > 0:
            due = max(rested + rules.keep_alive, least)
            if now >= due:
                going[one.key] = Down.SLEEP
                awake -= 1
            else:
                again = min(again, due)
    return going, again


def _shortest(rules: Rules) -> float:
    return min(math.inf if after is None else after for after in (rules.keep_alive, rules.idle_after))


# -- memory --------------------------------------------------------------------------------------------------------


class _Room:
    """What is free, and what is on its way back, by device; wants take from it one after another."""

    def __init__(self, free: Bytes, coming: Bytes) -> None:
        self.free = dict(free)
        self.coming = dict(coming)

    def fits(self, needs: Bytes) -> bool:
        return all(self.free.get(device, 0) >= size for device, size in needs.items())

    def missing(self, needs: Bytes) -> dict[str, int]:
        """What neither is free nor comes back by itself."""
        short = {d: size - self.free.get(d, 0) - self.coming.get(d, 0) for d, size in needs.items()}
        return {device: size for device, size in short.items() if size > 0}

    def take(self, needs: Bytes) -> None:
        """Give away what is free now."""
        for device, size in needs.items():
            self.free[device] = self.free.get(device, 0) - max(0, size)

    def owe(self, needs: Bytes, freed: Bytes) -> None:
        """Promise `needs` out of what is on its way, `freed` included, and of what is free only what that lacks."""
        for device in {*needs, *freed}:
            free, coming = self.free.get(device, 0), self.coming.get(device, 0) + freed.get(device, 0)
            left = free + coming - max(0, needs.get(device, 0))
            self.free[device] = min(free, max(0, left))
            self.coming[device] = max(0, left - self.free[device])

    def close(self, devices: Collection[str]) -> None:
        """Nothing more is given here: all of it is owed to one that waits."""
        for device in devices:
            self.free[device], self.coming[device] = min(0, self.free.get(device, 0)), 0


def decide(
    wants: Iterable[Want],
    held: Sequence[Held],
    free: Bytes,
    returning: Bytes,
    loading: Collection[str],
    cards: Collection[str],
    now: float,
) -> Plan:
    """Who starts, and who goes for it.

    Args:
        free: bytes nobody has, by device. returning: bytes on their way back already.
        loading: cards on which something loads now. cards: devices on which only one may load at a time.
    """
    room = _Room(free, _sum([returning, *(one.holds for one in held if one.leaving)]))
    # What one of them could have if all others made way for it.
    reach = _Room(_sum([free, returning, *(one.holds for one in held if one.leaving or not one.pinned)]), {})
    starts: dict[str, int] = {}
    down: dict[str, Down] = {}
    closed: set[str] = set()
    hopeless: set[str] = set()
    again = math.inf
    turns = set(loading)
    for want in sorted(wants, key=lambda want: (not want.urgent, want.since)):
        place = next((place for place, needs in enumerate(want.needs) if room.fits(needs)), None)
        if place is not None:
            needs = want.needs[place]
            room.take(needs)
            on = {device for device in needs if device in cards}
            if turns.isdisjoint(on):
                starts[want.key] = place
                turns |= on
            continue
        able = [one for one in held if not one.leaving and one.key not in down and _may_go(one, want, now)]
        place, chosen = _cheapest(want, room, able)
        if chosen is not None:
            down |= chosen
            gone = {one.key: one for one in held}
            room.owe(want.needs[place], _sum(_freed(gone[key], how) for key, how in chosen.items()))
            continue
        if not want.urgent:
            continue
        if not any(reach.fits(needs) for needs in want.needs):
            hopeless.add(want.key)
            continue
        later = [one for one in held if not (one.leaving or one.pinned) and one.key not in down]
        place, chosen = _cheapest(want, room, later)
        ends, shut = _wait_for([one for one in later if one.key in (chosen or ())], now)
        again, closed = min(again, ends), closed | shut
        room.close(want.needs[place])
    return Plan(starts, down, frozenset(closed), frozenset(hopeless), again)


def _may_go(one: Held, want: Want, now: float) -> bool:
    """Whether it may be sent away now for the sake of `want`."""
    if one.outdated and one.model == want.model:
        # Its own successor: it ends in order, however long its answers take.
        return True
    return want.urgent and not (one.busy or one.pinned) and now >= one.since + one.stay


def _cheapest(want: Want, room: _Room, able: Sequence[Held]) -> tuple[int, dict[str, Down] | None]:
    """Which alternative of `want` costs the others least, and who goes for it; `None` where none can be had."""
    best: tuple[float, int, dict[str, Down]] | None = None
    for place, needs in enumerate(want.needs):
        missing = room.missing(needs)
        if not missing:
            return place, {}
        chosen = _evict(missing, able, room)
        if chosen is not None:
            price = sum(_worth(one, chosen[one.key]) for one in able if one.key in chosen)
            if best is None or price < best[0]:
                best = price, place, chosen
    return (best[1], best[2]) if best is not None else (0, None)


def _evict(missing: Bytes, able: Sequence[Held], room: _Room) -> dict[str, Down] | None:
    """The fewest, cheapest replicas whose going frees what is missing; asleep where that is enough."""
    by_key = {one.key: one for one in able}

    def enough(chosen: Mapping[str, Down]) -> bool:
        freed = [_freed(by_key[key], how) for key, how in chosen.items()]
        more = {device: -size for device, size in _sum(freed).items() if size < 0}
        return _covers(missing, freed) and room.fits(more)

    chosen = _pick(missing, [(one, _gently(one, missing, room)) for one in able])
    if chosen is not None and enough(chosen):
        return chosen
    chosen = _pick(missing, [(one, Down.STOP) for one in able])
    for key in chosen or ():
        softer = {**(chosen or {}), key: _gently(by_key[key], missing, room)}
        if enough(softer):
            chosen = softer
    return chosen


def _gently(one: Held, missing: Bytes, room: _Room) -> Down:
    """To sleep, where that frees something of what is missing and fits where it sleeps."""
    if not one.awake or one.asleep is None or one.outdated:
        return Down.STOP
    freed = _freed(one, Down.SLEEP)
    more = {device: -size for device, size in freed.items() if size < 0}
    useful = any(freed.get(device, 0) > 0 for device in missing)
    return Down.SLEEP if useful and room.fits(more) else Down.STOP


def _pick(missing: Bytes, options: Sequence[tuple[Held, Down]]) -> dict[str, Down] | None:
    """Cheapest first until it fits; then those that turn out not to be needed stay, the dearest first."""
    useful = []
    for one, how in options:
        freed = _freed(one, how)
        size = sum(max(0, min(freed.get(device, 0), missing[device])) for device in missing)
        if size:
            useful.append((not one.outdated, _worth(one, how) / size, one.used, one.key, how, freed))
    useful.sort(key=lambda option: option[:4])
    chosen: list[tuple[str, Down, Bytes]] = []
    for *_, key, how, freed in useful:
        if _covers(missing, [freed for _, _, freed in chosen]):
            break
        chosen.append((key, how, freed))
    if not _covers(missing, [freed for _, _, freed in chosen]):
        return None
    for option in reversed(chosen.copy()):
        rest = [other for other in chosen if other is not option]
        if _covers(missing, [freed for _, _, freed in rest]):
            chosen = rest
    return {key: how for key, how, _ in chosen}


def _covers(missing: Bytes, freed: Sequence[Bytes]) -> bool:
    return all(sum(one.get(device, 0) for one in freed) >= size for device, size in missing.items())


def _worth(one: Held, how: Down) -> float:
    """What its going costs: the time to bring it back, by the odds that it must be."""
    if not one.awake or how is Down.STOP:
        return one.wake * one.odds
    return one.rouse * one.odds


def _freed(one: Held, how: Down) -> dict[str, int]:
    """Bytes that come back when it goes that way; below zero on a device where it then holds more."""
    if how is Down.STOP or one.asleep is None:
        return dict(one.holds)
    return {d: one.holds.get(d, 0) - one.asleep.get(d, 0) for d in {*one.holds, *one.asleep}}


def _wait_for(blockers: Sequence[Held], now: float) -> tuple[float, set[str]]:
    """Those who would have to go but may not yet: when that changes by itself, and who stops taking requests."""
    again, shut = math.inf, set[str]()
    for one in blockers:
        ends = one.since + one.stay
        if now < ends:
            again = min(again, ends)
        elif one.busy and one.awake:
            phase = 0.0 if one.closed is None else (now - one.closed) % (2 * CLOSED)
            again = min(again, now + (CLOSED if phase < CLOSED else 2 * CLOSED) - phase)
            if phase < CLOSED:
                shut.add(one.key)
    return again, shut


def _sum(parts: Iterable[Bytes]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in parts:
        for device, size in part.items():
            total[device] = total.get(device, 0) + size
    return total
