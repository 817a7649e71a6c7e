"""What is kept of a breaker, and what holds after any history."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumen.core.breaker import FIRST_SPAN, IN_A_ROW, LONGEST, PATIENCE, Breaker, State
from tests.core.breakers import T, fail, in_state, opened, state_of

# -- keeping ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", list(State))
def test_round_trip(state: State) -> None:
    breaker, _ = in_state(state)
    loaded = Breaker.load(json.loads(json.dumps(breaker.dump())), T)
    assert (loaded.state, loaded.since, loaded.why) == (breaker.state, breaker.since, breaker.why)
    assert loaded.growth == breaker.growth
    assert loaded.admits(T) is (state is not State.DRAINED)


def test_an_open_state_is_honoured_after_a_restart() -> None:
    breaker = Breaker(T)
    breaker.asked_for(T, T, 60.0, "asked", draw=0.0)
    loaded = Breaker.load(breaker.dump(), T + 20)
    assert not loaded.admits(T + 59)
    assert loaded.admits(T + 60)


@pytest.mark.parametrize("back", [0.5, 3600.0, 1e8])
def test_the_clock_stepped_back(back: float) -> None:
    for breaker in (opened(T), Breaker.load(opened(T).dump(), T - back)):
        assert not breaker.admits(T - back)
        assert breaker.admits(T - back + FIRST_SPAN)


def test_the_clock_stepped_back_while_closed() -> None:
    breaker = Breaker(T)
    for i in range(IN_A_ROW):
        fail(breaker, T - 3600 + i)
    assert state_of(breaker) is State.OPEN


@pytest.mark.parametrize(
    "change",
    [
        {"state": "ajar"},
        {"state": None},
        {"since": "yesterday"},
        {"since": math.nan},
        {"until": math.nan},
        {"growth": "x"},
        {"growth": None},
    ],
)
def test_what_is_not_a_breaker_is_refused(change: dict[str, object]) -> None:
    kept = opened().dump()
    with pytest.raises(ValueError):
        Breaker.load({**kept, **change}, T)
    for name in kept:
        with pytest.raises(ValueError):
            Breaker.load({k: v for k, v in kept.items() if k != name}, T)


def test_a_file_cannot_eject_for_ever() -> None:
    kept = {**opened().dump(), "until": None, "growth": 10**9}
    assert Breaker.load(kept, T).admits(T + LONGEST)


# -- any history -----------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["enter", "ok", "fail", "release", "late_fail", "slow", "throttled", "alive", "restart"]),
        st.floats(0.0, 20.0),
        st.floats(0.0, 0.999),
    ),
    max_size=80,
)


class Play:
    """A breaker and the attempts under way, as the gateway would use it."""

    def __init__(self) -> None:
        self.now = T
        self.breaker = Breaker(T)
        self.under_way: list[tuple[float, int]] = []

    def act(self, what: str, passed: float, draw: float) -> None:
        self.now += passed
        now, breaker = self.now, self.breaker
        began, ticket = self.under_way[0] if self.under_way else (now, 0)
        if what == "enter":
            self.enter()
        elif what == "restart":
            self.breaker = Breaker.load(json.loads(json.dumps(breaker.dump())), now)
            self.under_way.clear()
        elif what == "alive":
            breaker.alive(now)
        elif what == "slow":
            breaker.paced(now, now, slow=True, draw=draw)
        elif what == "throttled":
            breaker.asked_for(now, now, None, "asked", draw=draw)
        elif what == "late_fail":
            fail(breaker, now, began=T, draw=draw)
        else:
            self.under_way = self.under_way[1:]
            if what == "ok":
                breaker.succeeded(now, began, ticket)
            elif what == "fail":
                fail(breaker, now, began, ticket, draw)
            else:
                breaker.released(ticket)

    def enter(self) -> bool:
        ticket = self.breaker.enter(self.now)
        if ticket is not None:
            self.under_way.append((self.now, ticket))
        return ticket is not None


@settings(deadline=None)
@given(STEPS)
def test_a_target_that_is_back_serves_within_fifteen_seconds(steps: list[tuple[str, float, float]]) -> None:
    play = Play()
    for what, passed, draw in steps:
        play.act(what, passed, draw)
    # Healthy from here on: whoever gets in is served, and requests come twice a second. What hangs, hangs.
    healthy = play.now
    while not play.enter():
        play.now += 0.5
        assert play.now - healthy <= 15.0
    began, ticket = play.under_way[-1]
    play.breaker.succeeded(play.now, began, ticket)
    assert state_of(play.breaker) is State.CLOSED
    assert play.now - healthy <= 15.0


@settings(deadline=None)
@given(STEPS, st.floats(0.0, 1e6))
def test_also_where_the_clock_steps_back(steps: list[tuple[str, float, float]], back: float) -> None:
    play = Play()
    for what, passed, draw in steps:
        play.act(what, passed, draw)
    play.now -= back
    healthy = play.now
    while not play.enter():
        play.now += 0.5
        assert play.now - healthy <= 15.0


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["enter", "end", "again"]), st.floats(0.0, 3.0)), max_size=60))
def test_never_two_probes_within_patience(steps: list[tuple[str, float]]) -> None:
    breaker = opened()
    now = breaker.until
    live: tuple[int, float] | None = None
    spent: list[int] = []
    for what, passed in steps:
        now += passed
        if what == "enter":
            ticket = breaker.enter(now)
            assert (ticket is not None) == (live is None or now >= live[1] + PATIENCE)
            if ticket:
                if live:
                    spent.append(live[0])
                live = ticket, now
        elif what == "end" and live:
            breaker.released(live[0])
            spent.append(live[0])
            live = None
        elif spent:
            breaker.released(spent[0])
