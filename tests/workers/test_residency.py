"""Who holds memory: idleness, eviction, mixed traffic over models that do not fit together; on a clock of its own."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import dataclass, field, replace

from hypothesis import given
from hypothesis import strategies as st

from lumen.config.schema import Model
from lumen.workers.residency import CLOSED, Down, Held, Plan, Rules, Want, decide, idle, stay

GPU = "gpu:0"


def held(key: str, size: int = 10, **rest: object) -> Held:
    return replace(Held(key, key[0], {GPU: size}, odds=0.5), **rest)  # type: ignore[arg-type]


def want(key: str, size: int = 10, since: float = 0.0, urgent: bool = True) -> Want:
    return Want(key, key[0], ({GPU: size},), urgent, since)


def plan(wants: list[Want], there: list[Held], free: int = 0, now: float = 100.0, returning: int = 0) -> Plan:
    return decide(wants, there, {GPU: free}, {GPU: returning}, (), (GPU,), now)


# -- rules ---------------------------------------------------------------------------------------------------------


def test_the_rules_of_a_model() -> None:
    def of(**keys: object) -> tuple[int, int, int, int, int]:
        rules = Rules.of(Model("x", **keys))  # type: ignore[arg-type]
        return rules.boot, rules.floor, rules.low, rules.high, rules.first

    assert of() == (1, 0, 1, 1, 1)
    assert of(replicas=3) == (3, 0, 3, 3, 3)
    assert of(replicas=3, pinned=True) == (3, 3, 3, 3, 3)
    assert of(idle_after=60.0) == (0, 0, 1, 1, 1)
    assert of(idle_after=60.0, replicas=2) == (0, 0, 2, 2, 2)
    assert of(min_replicas=0) == (0, 0, 1, 1, 1)
    assert of(min_replicas=1, max_replicas=4, replicas=2) == (1, 1, 1, 4, 2)
    assert of(max_replicas=4) == (1, 0, 1, 4, 1)


def test_a_stay_follows_the_cost_of_a_swap_within_bounds() -> None:
    assert (stay(5.0, 1.0), stay(5.0, 10.0), stay(0.0, 1e9)) == (5.0, 20.0, 60.0)


# -- idleness ------------------------------------------------------------------------------------------------------


def rules(**keys: object) -> Rules:
    return Rules.of(Model("x", min_residency=0.0, **keys))  # type: ignore[arg-type]


def test_the_idle_sleep_and_then_end_on_time_and_not_before() -> None:
    says = rules(keep_alive=10.0, idle_after=60.0)
    one = held("m", used=100.0, since=90.0, asleep={})
    assert idle(says, [one], 109.9) == ({}, 110.0)
    assert idle(says, [one], 110.0) == ({"m": Down.SLEEP}, 160.0)
    asleep = replace(one, awake=False, asleep=None)
    assert idle(says, [asleep], 159.9) == ({}, 160.0)
    assert idle(says, [asleep], 160.0) == ({"m": Down.STOP}, math.inf)
    assert idle(says, [replace(one, asleep=None)], 150.0) == ({}, 160.0)  # its engine cannot sleep


def test_the_busy_and_those_just_loaded_are_left_alone() -> None:
    says = replace(rules(idle_after=1.0), stay=30.0)
    assert idle(says, [held("m", busy=True)], 1e6) == ({}, 1e6 + 1)  # it may be done at any time
    assert idle(rules(), [held("m", busy=True)], 1e6) == ({}, math.inf)
    assert idle(rules(keep_alive=0.0), [held("m", busy=True)], 1e6)[1] > 1e6
    assert idle(says, [held("m", since=100.0)], 110.0) == ({}, 130.0)
    assert idle(says, [held("m", since=100.0, used=129.5)], 130.0) == ({}, 130.5)


def test_idleness_leaves_the_floor_and_takes_the_longest_unused_first() -> None:
    says = rules(idle_after=1.0, min_replicas=1, replicas=3)
    three = [held("m0", used=50.0), held("m1", used=10.0), held("m2", used=20.0)]
    assert idle(says, three, 100.0)[0] == {"m1": Down.STOP, "m2": Down.STOP}
    equal = [held("m0"), held("m1"), held("m2")]
    assert set(idle(says, equal, 100.0)[0]) == {"m1", "m2"}
    assert idle(rules(idle_after=1.0, min_replicas=1), [held("m", asleep={})], 1e9)[0] == {}


@given(
    st.integers(0, 3),
    st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(0, 100), st.booleans()), max_size=5),
    st.none() | st.floats(0, 50),
    st.none() | st.floats(50, 100),
    st.floats(0, 300),
)
def test_idleness_never_takes_the_busy_nor_goes_below_the_floor(
    floor: int,
    kinds: list[tuple[bool, bool, float, bool]],
    keep: float | None,
    after: float | None,
    now: float,
) -> None:
    says = replace(rules(), floor=floor, keep_alive=keep, idle_after=after)
    there = [
        held(f"m{n}", awake=awake, busy=busy, used=used, asleep={} if sleeps and awake else None)
        for n, (awake, busy, used, sleeps) in enumerate(kinds)
    ]
    going, again = idle(says, there, now)
    by_key = {one.key: one for one in there}
    assert not any(by_key[key].busy for key in going)
    left = [one for one in there if going.get(one.key) is not Down.STOP]
    awake = [one for one in left if one.awake and one.key not in going]
    assert len(left) >= min(floor, len(there))
    assert len(awake) >= min(floor, sum(one.awake for one in there))
    assert again > now
    # Looked at again when it says so, and not before, something is due (or nothing ever is).
    if again < math.inf and not any(one.busy for one in there):
        after_going = [replace(o, awake=False, asleep=None) if o.key in going else o for o in left]
        assert idle(says, after_going, math.nextafter(again, 0.0))[0] == {}
        assert idle(says, after_going, again)[0]


# -- eviction ------------------------------------------------------------------------------------------------------


def test_what_fits_sends_nobody_away() -> None:
    assert plan([want("a")], [held("b")], free=10) == Plan({"a": 0}, {}, frozenset(), frozenset(), math.inf)


def test_what_is_on_its_way_back_is_waited_for() -> None:
    assert plan([want("a")], [held("b")], free=4, returning=6) == Plan({}, {}, frozenset(), frozenset(), math.inf)
    assert plan([want("a")], [held("b"), held("c", leaving=True)]).down == {}


def test_the_cheapest_by_wake_cost_times_odds_a_byte_goes() -> None:
    dear, cheap = held("b", wake=10.0, odds=0.9), held("c", wake=1.0, odds=0.9)
    assert plan([want("a")], [dear, cheap]).down == {"c": Down.STOP}
    rare, often = held("b", wake=5.0, odds=0.1), held("c", wake=1.0, odds=0.9)
    assert plan([want("a")], [rare, often]).down == {"b": Down.STOP}
    # Large and small: the small one would not be enough, so it is spared.
    assert plan([want("a")], [held("b", 10), held("c", 2, odds=0.0)]).down == {"b": Down.STOP}
    # Equal in all else: the longest unused.
    assert plan([want("a")], [held("b", used=9.0, odds=0.0), held("c", used=5.0, odds=0.0)]).down == {"c": Down.STOP}


def test_sleep_is_enough_where_it_frees_enough() -> None:
    one = held("b", 10, asleep={GPU: 1, "ram": 5})
    gone = decide([want("a", 9)], [one], {GPU: 0, "ram": 5}, {}, (), (GPU,), 100.0)
    assert gone.down == {"b": Down.SLEEP}
    assert decide([want("a", 10)], [one], {GPU: 0, "ram": 5}, {}, (), (GPU,), 100.0).down == {"b": Down.STOP}
    # Nowhere to sleep.
    assert decide([want("a", 9)], [one], {GPU: 0, "ram": 4}, {}, (), (GPU,), 100.0).down == {"b": Down.STOP}
    two = [one, held("c", 10, asleep={GPU: 1, "ram": 5})]
    both = decide([want("a", 18)], two, {GPU: 0, "ram": 5}, {}, (), (GPU,), 100.0).down
    assert sorted(how.value for how in both.values()) == ["sleep", "stop"]


def test_those_asleep_make_room_where_they_sleep() -> None:
    asleep = Held("b", "b", {"ram": 5}, awake=False)
    gone = decide([Want("a", "a", ({"ram": 5},))], [asleep], {"ram": 0}, {}, (), (GPU,), 100.0)
    assert gone.down == {"b": Down.STOP}


def test_nobody_goes_where_it_would_not_help() -> None:
    found = plan([want("a", 30)], [held("b"), held("c", pinned=True)])
    assert found == Plan({}, {}, frozenset(), frozenset({"a"}), math.inf)


def test_the_busy_the_pinned_and_those_within_their_stay_are_spared() -> None:
    for spared in (held("b", busy=True), held("b", pinned=True), held("b", since=99.0, stay=5.0)):
        assert plan([want("a")], [spared, held("c", wake=99.0, odds=1.0)]).down == {"c": Down.STOP}
        assert plan([want("a")], [spared]).down == {}
    assert plan([want("a")], [held("b", since=99.0, stay=5.0)]).again == 104.0
    assert plan([want("a")], [held("b", pinned=True)]).hopeless == {"a"}


def test_a_busy_one_past_its_stay_takes_nothing_new_for_a_while() -> None:
    def of(closed: float | None, now: float = 100.0) -> tuple[set[str], float]:
        found = plan([want("a")], [held("b", busy=True, closed=closed)], now=now)
        assert found.down == {}
        return set(found.closed), found.again

    assert of(None) == ({"b"}, 100 + CLOSED)
    assert of(90.0) == ({"b"}, 90 + CLOSED)
    # An answer without end: its own callers get their turn again.
    assert of(100 - CLOSED) == (set(), 100 + CLOSED)
    assert of(100 - 2 * CLOSED) == ({"b"}, 100 + CLOSED)
    assert plan([want("a", urgent=False)], [held("b", busy=True)]).closed == frozenset()


def test_what_nobody_waits_for_sends_nobody_away_and_holds_nothing_back() -> None:
    assert plan([want("a", urgent=False)], [held("b")]) == Plan({}, {}, frozenset(), frozenset(), math.inf)
    assert plan([want("a", 10, 0.0, urgent=False), want("b", 5, 1.0, urgent=False)], [], free=5).starts == {"b": 0}


def test_the_one_that_waits_longest_is_not_overtaken() -> None:
    # `a` waits for `c` to finish; `b` would fit now, but then `a` would not.
    assert plan([want("a", 10, 0.0), want("b", 5, 1.0)], [held("c", 5, busy=True)], free=5).starts == {}
    # Here both fit in the end.
    assert plan([want("a", 10, 0.0), want("b", 5, 1.0)], [held("c", 10)], free=5).starts == {"b": 0}


def test_two_that_want_the_place_of_one_take_turns_and_neither_is_hopeless() -> None:
    found = plan([want("a", 10, 0.0), want("b", 10, 1.0)], [held("c")])
    assert (dict(found.down), set(found.hopeless)) == ({"c": Down.STOP}, set())
    assert plan([want("a", 10, 0.0), want("b", 10, 1.0)], [held("c", leaving=True)]).hopeless == frozenset()
    assert plan([want("a", 10, 0.0), want("b", 10, 1.0)], [], free=10).hopeless == frozenset()
    assert plan([want("a", 10, 0.0), want("b", 11, 1.0)], [], free=10).hopeless == {"b"}


def test_one_after_the_other_on_a_card_and_side_by_side_in_memory() -> None:
    assert plan([want("a", 1, 0.0), want("b", 1, 1.0)], [], free=10).starts == {"a": 0}
    wants = [Want(name, name, ({"ram": 1},)) for name in "ab"]
    assert decide(wants, [], {"ram": 9}, {}, (), (GPU,), 0.0).starts == {"a": 0, "b": 0}
    assert decide([want("a", 1)], [], {GPU: 9}, {}, (GPU,), (GPU,), 0.0).starts == {}


def test_what_is_set_aside_is_not_there_while_others_have_it() -> None:
    # All ten bytes of the card are set aside for `a`, and `b` has them.
    assert plan([want("a", 0)], [held("b")], free=-10) == Plan({}, {"b": Down.STOP}, frozenset(), frozenset(), math.inf)
    assert plan([want("a", 0)], [held("b", leaving=True)], free=-10).down == {}
    # Fifteen are, of which it takes ten: five more than it needs may stay away.
    assert plan([want("a", -5)], [held("b", 4), held("c", 6)], free=-10).down == {"c": Down.STOP}
    assert plan([want("a", -5)], [], free=-5).starts == {"a": 0}
    # What it does not take is nobody else's.
    wants = [Want(name, name, ({"ram": size},)) for name, size in (("a", -5), ("b", 1))]
    assert decide(wants, [], {"ram": 0}, {}, (), (GPU,), 0.0).starts == {"a": 0}
    assert plan([want("a", 0, 0.0), want("b", 1, 1.0)], [held("c")], free=-10).down == {"c": Down.STOP}


def test_among_alternatives_the_free_one_then_the_cheapest() -> None:
    on = [{"gpu:0": 10}, {"gpu:1": 10}]
    there = [Held("b", "b", {"gpu:0": 10}, wake=9.0, odds=1.0), Held("c", "c", {"gpu:1": 10}, wake=1.0, odds=1.0)]
    wants = [Want("a", "a", tuple(on))]
    assert decide(wants, there, {"gpu:1": 10}, {}, (), ("gpu:0", "gpu:1"), 0.0).starts == {"a": 1}
    assert decide(wants, there, {}, {}, (), ("gpu:0", "gpu:1"), 0.0).down == {"c": Down.STOP}


def test_a_successor_that_does_not_fit_beside_the_old_one_sends_that_one_first() -> None:
    old = held("m0", busy=True, outdated=True, pinned=True)
    new = Want("m1", "m", ({GPU: 10},), urgent=False)
    assert plan([new], [old, held("z")]).down == {"m0": Down.STOP}
    assert plan([new], [old], free=10).starts == {"m1": 0}


sizes = st.integers(1, 12)
replicas = st.lists(
    st.builds(
        lambda size, busy, pinned, since, wake, odds, naps, leaving: held(
            "x", size, busy=busy, pinned=pinned, since=since, stay=10.0, wake=wake, odds=odds,
            asleep={GPU: size // 3} if naps else None, leaving=leaving,
        ),
        sizes, st.booleans(), st.booleans(), st.sampled_from([0.0, 95.0]), st.floats(0.1, 9), st.floats(0, 1),
        st.booleans(), st.booleans(),
    ),
    max_size=6,
)  # fmt: skip


@given(replicas, st.lists(st.tuples(sizes, st.booleans()), min_size=1, max_size=4), st.integers(0, 12))
def test_only_who_may_and_only_as_many_as_needed(there: list[Held], asked: list[tuple[int, bool]], free: int) -> None:
    there = [replace(one, key=f"h{n}", model=f"h{n}") for n, one in enumerate(there)]
    wants = [want(f"w{n}", size, float(n), urgent) for n, (size, urgent) in enumerate(asked)]
    found = decide(wants, there, {GPU: free, "ram": 99}, {}, (), (), 100.0)
    by_key = {one.key: one for one in there}
    for key in found.down:
        one = by_key[key]
        assert not (one.busy or one.pinned or one.leaving)
        assert one.since + one.stay <= 100.0
    for key in found.closed:
        assert by_key[key].busy and not by_key[key].pinned and key not in found.down
    assert sum(wants[int(key[1:])].needs[0][GPU] for key in found.starts) <= free
    if len(wants) == 1 and found.down:
        size = wants[0].needs[0][GPU]
        coming = free + sum(one.holds[GPU] for one in there if one.leaving)

        def freed(down: dict[str, Down]) -> int:
            return sum(
                by_key[key].holds[GPU] - ((by_key[key].asleep or {}).get(GPU, 0) if how is Down.SLEEP else 0)
                for key, how in down.items()
            )

        assert coming < size <= coming + freed(dict(found.down))
        for key in found.down:
            assert coming + freed({k: v for k, v in found.down.items() if k != key}) < size
    if wants[0].urgent and not found.starts and not found.down and len(wants) == 1:
        # It waits only where nothing that may go now would be enough.
        may = [one for one in there if not (one.busy or one.pinned) and (one.leaving or one.since == 0.0)]
        ours = (
            free + sum(one.holds[GPU] for one in may) + sum(o.holds[GPU] for o in there if o.leaving and o not in may)
        )
        soon = free + sum(one.holds[GPU] for one in there if one.leaving) >= wants[0].needs[0][GPU]
        assert soon or ours < wants[0].needs[0][GPU]


# -- mixed traffic -------------------------------------------------------------------------------------------------


@dataclass
class World:
    """A card that holds one model at a time, and callers; every model takes `wake` seconds to come."""

    wake: float
    stay: float
    service: float = 0.2
    now: float = 0.0
    loaded: str = ""
    since: float = 0.0
    until: float = 0.0  # when what is being loaded is there
    coming: str = ""
    waiting: list[tuple[float, str]] = field(default_factory=list)
    running: list[tuple[float, str]] = field(default_factory=list)  # when an answer ends
    swaps: int = 0
    waits: list[float] = field(default_factory=list)
    closed: bool = False

    def tick(self, dt: float) -> None:
        self.now += dt
        self.running = [(end, model) for end, model in self.running if end > self.now]
        if self.coming and self.now >= self.until:
            self.loaded, self.since, self.coming = self.coming, self.now, ""
        if self.loaded and not self.closed:
            for came, model in [one for one in self.waiting if one[1] == self.loaded]:
                self.waiting.remove((came, model))
                self.waits.append(self.now - came)
                self.running.append((self.now + self.service, model))
        there = []
        if self.loaded or self.coming:
            name = self.loaded or self.coming
            busy = bool(self.coming or self.running)
            # Between two states it holds its memory and cannot be sent away.
            there = [held(name, 10, busy=busy, since=self.since if self.loaded else self.now, stay=self.stay)]
        names = {model for _, model in self.waiting} - {self.loaded, self.coming}
        wants = [want(name, 10, min(came for came, model in self.waiting if model == name)) for name in names]
        todo = decide(wants, there, {GPU: 0 if there else 10}, {}, (), (GPU,), self.now)
        self.closed = bool(todo.closed)
        if todo.down:
            self.loaded = ""
        elif todo.starts:
            (name,) = todo.starts
            self.coming, self.until, self.swaps = name, self.now + self.wake, self.swaps + 1


def test_abcabc_does_not_swap_six_times() -> None:
    world = World(wake=1.0, stay=stay(2.0, 1.0))
    for model in "abcabc":
        world.waiting.append((world.now, model))
        for _ in range(10):
            world.tick(0.01)
    for _ in range(3000):
        world.tick(0.01)
    assert world.waiting == [] and len(world.waits) == 6
    assert world.swaps == 3


def test_mixed_traffic_is_served_a_stay_at_a_time_and_nobody_starves() -> None:
    world = World(wake=1.0, stay=stay(2.0, 1.0))
    models = itertools.cycle("abc")
    for step in range(12000):  # two minutes, a request every 100 ms
        if step % 10 == 0:
            world.waiting.append((world.now, next(models)))
        world.tick(0.01)
    # A swap every stay plus what a swap takes, not one a request.
    assert 120 / 8 <= world.swaps <= 120 / 3
    assert len(world.waits) > 1000
    assert max(world.waits) < 3 * (2.0 + 1.0 + 0.2 + 0.1) + 1.0
    left = Counter(model for _, model in world.waiting)
    assert all(count < 100 for count in left.values())
