"""The warm pool: carries out what `residency` and `scaling` decide.

A look is synchronous and cheap, and happens when something changed, when it was told to, or when the last look said
so. Only here are replicas given their turn, put to sleep, woken, and sent away.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from lumen.config.schema import Model
from lumen.workers import residency, scaling
from lumen.workers.accounts import Accounts
from lumen.workers.group import Group
from lumen.workers.habits import Habits
from lumen.workers.lifecycle import State
from lumen.workers.replica import Replica
from lumen.workers.residency import Down, Held, Plan, Rules, Want
from lumen.workers.seats import Memory, Seat
from lumen.workers.spec import Home, Spec, Standing

DEMAND = 30.0
"""Seconds for which a request that did not wait (its route has cover) still counts as asking for the model."""

_COMING = (State.OFF, State.WAITING, State.STARTING, State.PROBING, State.WAKING, State.CRASHED)
_BETWEEN = (State.STARTING, State.PROBING, State.WAKING)
_DOWN = (State.SLEEPING, State.ASLEEP)
_SPARE = 1.0  # seconds between looks at a model that may have one replica too many
_CROWDED = 0.05  # seconds between looks at one that may have too few
_AT_LEAST = 600.0  # seconds after which everything is looked at, whatever happens
_AHEAD = 600.0  # seconds before the hour in which a model is usually asked for
_LIKELY = 0.5


@dataclass(slots=True)
class Member:
    """One model. `asked`: when it was last asked for in vain. `rousing`: asleep replicas to wake. `closed`: since when
    replicas have taken nothing new. `blocked`: those that wait, and that nothing could be done for at the last look.
    `dismissed`: an operator sent it to sleep; until somebody asks for it."""

    group: Group
    rules: Rules
    known: Habits
    trend: scaling.Trend = field(default_factory=scaling.Trend)
    asked: float = -math.inf
    rousing: set[str] = field(default_factory=set)
    closed: dict[str, float] = field(default_factory=dict)
    blocked: frozenset[str] = frozenset()
    dismissed: bool = False

    @property
    def current(self) -> list[Replica]:
        return [one for one in self.group.staying if self.group.current(one)]

    def coming(self, one: Replica) -> bool:
        """Whether it is on its way to serve."""
        return one.life.state in _COMING or one.key in self.rousing

    def wanted(self, now: float) -> bool:
        """Whether somebody asks for it and is not being answered."""
        return bool(self.group.waiting) or now - self.asked < DEMAND


class Pool:
    """`told` hears of every change of state of a replica. `known`: what is remembered of models, by name."""

    def __init__(self, home: Home, memory: Memory, known: dict[str, Habits], told: Callable[[Replica], None]) -> None:
        self.members: dict[str, Member] = {}
        self.leaving: set[Group] = set()
        self.known = known
        self._home = home
        self._accounts = Accounts(memory, self.replicas, self.nudge)
        self._told = told
        self._loop = asyncio.get_running_loop()
        self._due: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._offers: dict[str, tuple[Seat, ...]] = {}  # by replica: the seats of the look under way
        self._eager = False  # the end of a request may let something happen
        self._over = False

    def replicas(self) -> Iterator[Replica]:
        """All there are, those that are ending included."""
        for group in (*(member.group for member in self.members.values()), *self.leaving):
            yield from group.replicas

    def standing(self, name: str) -> Standing:
        """How a member stands."""
        member, now = self.members[name], self._loop.time()
        states = {one.life.state for one in member.current}
        down = all(one.life.state in _DOWN or one.key in member.blocked for one in member.current)
        ledger = [self._accounts.holds(one) for one in member.group.replicas]
        return Standing(
            model=name,
            residency=_residency(states),
            resting=down and not member.wanted(now),
            waiting=member.group.waiting,
            holds={device: sum(one.get(device, 0) for one in ledger) for one in ledger for device in one},
            wakes=dict(member.known.costs.seconds),
            odds=member.known.rate.odds(now),
        )

    # -- what is wanted ----------------------------------------------------------------------------------

    def adopt(self, models: Mapping[str, tuple[Spec, Model, bool]]) -> None:
        """Keep these models (spec, configuration, whether two replicas can run side by side), and no others."""
        for name in [name for name in self.members if name not in models]:
            group = self.members.pop(name).group
            if group.replicas:
                self.leaving.add(group)
            group.dismiss(self._home.timing.replaced)
        for name, (spec, model, beside) in models.items():
            rules = Rules.of(model)
            if not beside:
                rules = replace(rules, high=1, low=1, first=1, boot=min(rules.boot, 1), floor=min(rules.floor, 1))
            member = self.members.get(name)
            if member is None:
                known = self.known.setdefault(name, Habits())
                member = self.members[name] = Member(Group(name, self._home, self, known.rate), rules, known)
            member.rules = rules
            member.group.want(spec, model.queue, beside)
            # What is in use while the bounds change stays in use.
            member.group.aim(min(max(member.group.count, rules.boot), rules.high))
        self.nudge()

    def dismiss(self, grace: float) -> list[Group]:
        """Serve nothing more; every group there is, to be waited for."""
        self._over = True
        for handle in (self._due, self._timer):
            if handle is not None:
                handle.cancel()
        groups = [*(member.group for member in self.members.values()), *self.leaving]
        self.leaving.update(groups)
        self.members.clear()
        for group in groups:
            group.dismiss(grace)
        return groups

    def sleep(self, name: str) -> None:
        """Have a member sleep, or end where its engine cannot sleep, once its answers are done."""
        self.members[name].dismissed = True
        self.nudge()

    def wake(self, name: str) -> None:
        """As if it were asked for."""
        member = self.members[name]
        member.dismissed, member.asked = False, self._loop.time()
        self.nudge()

    async def close(self) -> None:
        """After the last replica is gone."""
        await self._accounts.close()

    # -- what happens ------------------------------------------------------------------------------------

    def changed(self, group: Group, replica: Replica) -> None:
        """See `Watcher`."""
        member = self.members.get(group.name)
        if member is not None and replica.life.state is State.READY and replica.woke is not None:
            member.known.costs.add(replica.woke.how, replica.woke.seconds)
            member.closed.pop(replica.key, None)
            member.asked = -math.inf
        if member is not None and replica.life.state is State.OFF:
            member.closed.pop(replica.key, None)
            member.rousing.discard(replica.key)
        self._accounts.changed(replica)
        self._told(replica)
        if not group.replicas:
            self.leaving.discard(group)
        self.nudge()

    def asked(self, group: Group) -> None:
        """See `Watcher`."""
        member = self.members.get(group.name)
        if member is not None:
            if not any(one.ready for one in member.current):
                member.asked = self._loop.time()
            self.nudge()

    def freed(self) -> None:
        """A request ended."""
        if self._eager:
            self.nudge()

    def nudge(self) -> None:
        """Look as soon as everything that happens now has happened."""
        if self._due is None and not self._over:
            self._due = self._loop.call_soon(self._look)

    # -- a look ------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Decide, and see to it."""
        self._due = None
        if self._timer is not None:
            self._timer.cancel()
        if self._over:
            return
        now, again = self._loop.time(), math.inf
        for member in self.members.values():
            again = min(again, self._tend(member, now))
        self._offers.clear()
        wants = {want.key: want for member in self.members.values() for want in self._wants(member, now)}
        accounts = self._accounts
        if wants and not accounts.fresh(now):
            return
        plan = residency.decide(
            wants.values(), list(self._held(now)), accounts.free(), accounts.returning(), accounts.loading(),
            accounts.cards, now,
        )  # fmt: skip
        if plan.hopeless and not accounts.fresh(now, sure=True):
            return
        pressed = any(want.urgent for want in wants.values())
        for member in self.members.values():
            self._carry_out(member, plan, wants, now)
            if not pressed:
                member.closed.clear()
        # A want that nothing was done about waits for somebody to be done.
        self._eager = len(plan.starts) < len(wants)
        self._timer = self._loop.call_at(min(again, plan.again, now + _AT_LEAST), self._look)

    def _tend(self, member: Member, now: float) -> float:
        """See to the number of replicas of one model; when to look again."""
        group, rules, current = member.group, member.rules, member.current
        wanted = member.wanted(now)
        if wanted:
            member.dismissed = False
        # Whoever is served at once asks nobody here.
        rested = 0.0 if wanted or group.in_flight else now - member.known.rate.last
        if rested < math.inf:
            member.known.hours.add(time.time() - rested)
        likely = rules.prewarm and not member.dismissed and self._likely(member)
        if (wanted or likely) and not any(one.ready or member.coming(one) for one in current):
            asleep = [one for one in current if one.life.state is State.ASLEEP]
            if asleep:
                member.rousing.add(max(asleep, key=lambda one: one.load.used).key)
            elif group.count == 0:
                group.aim(rules.first)
        again = math.inf
        if member.dismissed:
            again = self._idle(member, _dismissed(rules, current), now)
        elif not wanted:
            self._unwanted(member, likely)
            again = self._idle(member, replace(rules, floor=max(rules.floor, int(likely))), now)
        return min(again, self._scale(member, now))

    @staticmethod
    def _likely(member: Member) -> bool:
        """Whether it is usually asked for at this hour of the week, or soon."""
        hours, now = member.known.hours, time.time()
        return max(hours.odds(now), hours.odds(now + _AHEAD)) >= _LIKELY

    def _unwanted(self, member: Member, likely: bool) -> None:
        """What waits for memory although nobody needs it any more."""
        group, rules, current = member.group, member.rules, member.current
        ready = [one for one in current if one.ready]
        if likely or group.in_flight > sum(one.slots or scaling.USUAL_SLOTS for one in ready):
            return
        member.rousing.clear()
        least = max(rules.boot, rules.low) if ready else rules.boot
        for one in current:
            if one.life.state is State.WAITING and one.waits and group.count > least:
                group.drop(one, group.count - 1)

    def _idle(self, member: Member, rules: Rules, now: float) -> float:
        there = [self._one(member, one, now) for one in member.current]
        going, again = residency.idle(rules, [one for one in there if one is not None and not one.leaving], now)
        self._send(member, going)
        return again

    def _scale(self, member: Member, now: float) -> float:
        """More replicas on waiting, fewer on idleness; when to look again."""
        group, rules, current = member.group, member.rules, member.current
        ready = [one for one in current if one.ready]
        coming = sum(member.coming(one) for one in current)
        slots = max((one.slots for one in ready), default=0)
        crowd = len(ready) * (slots or scaling.USUAL_SLOTS)
        group.crowd = crowd if ready and len(ready) + coming < rules.high else sys.maxsize
        if not ready:
            member.trend = scaling.Trend()
            return math.inf
        load = scaling.Load(group.in_flight + group.waiting, len(ready), coming, slots, group.releases())
        member.trend, change = scaling.scale(member.trend, load, rules.low, rules.high, now)
        if change > 0:
            # Sent to sleep or not: it is needed, and would be woken again and again.
            member.dismissed = False
            asleep = next((one for one in current if one.life.state is State.ASLEEP), None)
            if asleep is not None:
                member.rousing.add(asleep.key)
            else:
                # One that is falling asleep counts as neither, and comes back when it sleeps.
                group.aim(min(group.count + 1, max(group.count, rules.high)))
        elif change < 0:
            group.drop(min(ready, key=lambda one: (one.load.in_flight, -one.index)), group.count - 1)
        due = scaling.look_again(member.trend, now)
        spare = now + _SPARE if len(ready) > rules.low else math.inf
        return min(spare, math.inf if due is None else max(due, now + _CROWDED))

    # -- what there is, for the decision -----------------------------------------------------------------

    def _wants(self, member: Member, now: float) -> Iterator[Want]:
        """Its replicas that wait for memory. Requests wait for one of them at most: the rest takes what is free."""
        group = member.group
        urgent = member.wanted(now) and not any(one.ready or one.life.state in _BETWEEN for one in group.staying)
        since = group.since if group.since is not None else member.asked
        waits = [one for one in group.staying if one.waits and (member.coming(one))]
        free = self._accounts.free()
        # One that is woken is there sooner than one that is started.
        for one in sorted(waits, key=lambda one: (one.life.state is not State.ASLEEP, one.index)):
            has, aside = self._accounts.holds(one), self._accounts.aside(one)
            seats = self._offers[one.key] = self._accounts.seats(one, member.rules.high)
            needs = tuple(
                {d: _more(size - has.get(d, 0), aside.get(d, 0), free.get(d, 0)) for d, size in seat.holds.items()}
                for seat in seats
            )
            yield Want(one.key, group.name, needs, urgent, since if urgent else -float(member.rules.pinned))
            urgent = False

    def _held(self, now: float) -> Iterator[Held]:
        for member in self.members.values():
            yield from (held for one in member.group.replicas if (held := self._one(member, one, now)) is not None)
        for group in self.leaving:
            for one in group.replicas:
                yield Held(one.key, group.name, self._accounts.holds(one), busy=True, leaving=True)

    def _one(self, member: Member, one: Replica, now: float) -> Held | None:
        """A replica as the decision sees it; `None` where it holds nothing and is not at work either."""
        state = one.life.state
        holds, asleep = self._accounts.holds(one), self._accounts.asleep(one)
        if state in (State.OFF, State.WAITING, State.CRASHED) and not holds:
            return None
        costs, size = member.known.costs, sum(holds.values())
        resting = state is State.SLEEPING or (state is State.READY and not one.stopping and not one.ready)
        steady = one.ready or (state is State.ASLEEP and one.waits and one.key not in member.rousing)
        if resting:
            holds = {device: max(0, size - asleep.get(device, 0)) for device, size in holds.items()}
        wake = costs.of("off", size)
        return Held(
            key=one.key,
            model=member.group.name,
            holds=holds,
            awake=state is not State.ASLEEP,
            busy=not steady or one.load.in_flight > 0,
            leaving=one.stopping or resting,
            outdated=not member.group.current(one),
            pinned=member.rules.pinned or self._accounts.reserved(one),
            since=one.loaded,
            used=one.load.used,
            stay=residency.stay(member.rules.stay, wake),
            closed=member.closed.get(one.key),
            asleep=asleep if one.ready and one.sleeps else None,
            wake=wake,
            rouse=costs.of("asleep", size),
            odds=member.known.rate.odds(now),
        )

    # -- acting ------------------------------------------------------------------------------------------

    def _carry_out(self, member: Member, plan: Plan, wants: Mapping[str, Want], now: float) -> None:
        group = member.group
        self._send(member, {one.key: plan.down[one.key] for one in group.replicas if one.key in plan.down})
        self._close(member, plan.closed, now)
        mine = [one for one in group.staying if one.key in wants]
        for one in mine:
            place = plan.starts.get(one.key)
            if place is not None:
                # As it was offered: what is given meanwhile changes which seats are the better ones.
                seat = self._offers[one.key][place]
                if self._accounts.turn(one, seat, pinned=member.rules.pinned):
                    member.rousing.discard(one.key)
        member.blocked = frozenset(one.key for one in mine if one.waits)
        denied = any(one.key in plan.hopeless for one in mine)
        group.deny(f"The model '{group.name}' does not fit into the memory there is." if denied else None)

    def _send(self, member: Member, going: Mapping[str, Down]) -> None:
        group = member.group
        for one in [one for one in group.replicas if one.key in going]:
            if going[one.key] is Down.SLEEP:
                one.sleep()
            elif group.current(one):
                group.drop(one, max(group.count - 1, 0 if member.dismissed else member.rules.boot))
            else:
                one.stop(self._home.timing.replaced)

    @staticmethod
    def _close(member: Member, closed: frozenset[str], now: float) -> None:
        """Who takes nothing new now; who does again."""
        opened = False
        for one in member.group.replicas:
            shut = one.key in closed
            if shut:
                member.closed.setdefault(one.key, now)
            opened |= one.closed and not shut
            one.closed = shut
        if opened:
            member.group.serve_waiters()


def _more(more: int, aside: int, free: int) -> int:
    """What a replica that takes `more` bytes than it has needs of what is `free`; one that takes no more, nothing."""
    return more - aside if more > 0 else min(0, free)


def _dismissed(rules: Rules, current: list[Replica]) -> Rules:
    """What holds of a model that an operator sends to sleep."""
    naps = any(one.sleeps for one in current)
    return replace(rules, floor=0, stay=0.0, keep_alive=0.0, idle_after=None if naps else 0.0)


def _residency(states: set[State]) -> Literal["resident", "waking", "asleep", "off", "crashed"]:
    """A word for the states of a model's replicas."""
    if State.READY in states:
        return "resident"
    if not states.isdisjoint(_BETWEEN):
        return "waking"
    if not states.isdisjoint(_DOWN):
        return "asleep"
    return "crashed" if State.CRASHED in states else "off"
