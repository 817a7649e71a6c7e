"""The life of a replica, state by state and event by event."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumen.workers.lifecycle import TABLE, Action, Event, Life, State, Timing, backoff, expiry, step

T = Timing()
# One row a state: where each event that means something there goes, and what is done. Any other changes nothing.
EXPECTED = {
    "OFF": "START>WAITING:ASK",
    "WAITING": "TURN>STARTING:LAUNCH STOP>OFF:END",
    "STARTING": "LISTENING>PROBING:PROBE FAILED>CRASHED:MEND EXITED>CRASHED:MEND LATE>CRASHED:MEND STOP>DRAINING:DRAIN",
    "PROBING": "ANSWERED>READY:SERVE EXITED>CRASHED:MEND LATE>CRASHED:MEND STOP>DRAINING:DRAIN",
    "READY": "EXITED>CRASHED:MEND HUNG>CRASHED:MEND SLEEP>SLEEPING:REST STOP>DRAINING:DRAIN",
    "SLEEPING": "SLEPT>ASLEEP:SETTLE FAILED>DRAINING:DRAIN EXITED>CRASHED:MEND LATE>CRASHED:MEND STOP>DRAINING:DRAIN",
    "ASLEEP": "TURN>WAKING:ROUSE EXITED>CRASHED:MEND STOP>DRAINING:DRAIN",
    "WAKING": "ANSWERED>READY:SERVE FAILED>CRASHED:MEND EXITED>CRASHED:MEND LATE>CRASHED:MEND STOP>DRAINING:DRAIN",
    "DRAINING": "EXITED>OFF:END",
    "CRASHED": "DUE>WAITING:ASK STOP>OFF:END",
}
ROWS = {
    state: dict(cell.split(">") for cell in cells.split())  # event → "state:action"
    for state, cells in EXPECTED.items()
}
CASES = [(state, event, ROWS[state.name].get(event.name, "-")) for state in State for event in Event]
TIMED = (State.STARTING, State.PROBING, State.CRASHED, State.SLEEPING, State.WAKING)


@pytest.mark.parametrize(("state", "event", "cell"), CASES)
def test_every_state_with_every_event(state: State, event: Event, cell: str) -> None:
    life = Life(start_timeout=10, state=state, since=1.0, wake=5.0)
    after, action = step(life, event, 2.0, T)
    if cell == "-":
        assert (after, action) == (life, Action.NONE)
    else:
        goes, does = cell.split(":")
        assert (after.state, action, after.since) == (State[goes], Action[does], 2.0)


def test_the_cases_are_all_there_are() -> None:
    assert {(state, event) for state, event, _ in CASES} == {(s, e) for s in State for e in Event}
    assert {(state, event) for state, event, cell in CASES if cell != "-"} == set(TABLE)


def walk(life: Life, *events: tuple[Event, float]) -> Life:
    for event, now in events:
        life, _ = step(life, event, now, T)
    return life


def test_backoff_doubles_from_a_quarter_second_to_thirty() -> None:
    life = walk(Life(start_timeout=100), (Event.START, 0.0), (Event.TURN, 0.0))
    now, pauses = 0.0, []
    for _ in range(10):
        life = walk(life, (Event.EXITED, now))
        assert life.wake is not None
        pauses.append(life.wake - now)
        now = life.wake
        life = walk(life, (Event.DUE, now), (Event.TURN, now))
    assert pauses == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert life.restarts == 10
    assert backoff(10**6, T) == 30


def test_crashes_are_forgiven_after_a_minute_of_health_and_not_before() -> None:
    def crash_after(health: float) -> Life:
        life = Life(start_timeout=100, crashes=5, failed_starts=5)
        life = walk(life, (Event.START, 0), (Event.TURN, 0), (Event.LISTENING, 1), (Event.ANSWERED, 2))
        return walk(life, (Event.EXITED, 2 + health))

    assert (crash_after(59.9).crashes, crash_after(60).crashes) == (6, 1)
    assert crash_after(0.1).failed_starts == 0  # it had come up


def test_starting_has_one_limit_for_loading_and_probing_together() -> None:
    life = walk(Life(start_timeout=100), (Event.START, 0.0))
    assert life.wake is None  # waiting for memory is not starting
    life = walk(life, (Event.TURN, 10.0))
    assert (life.wake, expiry(life.state)) == (110, Event.LATE)
    life = walk(life, (Event.LISTENING, 60.0))
    assert life.wake == 110
    life = walk(life, (Event.LATE, 110.0))
    assert (life.state, life.failed_starts, expiry(life.state)) == (State.CRASHED, 1, Event.DUE)
    assert life.wake is not None
    life = walk(life, (Event.DUE, life.wake), (Event.TURN, 112.0), (Event.LISTENING, 120.0), (Event.ANSWERED, 121.0))
    assert (life.state, life.wake, life.failed_starts, life.restarts) == (State.READY, None, 0, 1)


def test_falling_asleep_and_waking_have_their_own_limit_and_a_failed_wake_counts_as_a_failed_start() -> None:
    life = Life(start_timeout=100, state=State.READY)
    life = walk(life, (Event.SLEEP, 10.0))
    assert (life.state, life.wake, expiry(life.state)) == (State.SLEEPING, 10 + T.slumber, Event.LATE)
    life = walk(life, (Event.SLEPT, 11.0))
    assert (life.state, life.wake) == (State.ASLEEP, None)
    life = walk(life, (Event.TURN, 20.0))
    assert (life.state, life.wake) == (State.WAKING, 20 + T.slumber)
    assert walk(life, (Event.ANSWERED, 21.0)).wake is None
    late = walk(life, (Event.LATE, 20 + T.slumber))
    assert (late.state, late.failed_starts) == (State.CRASHED, 1)


def test_one_that_ends_while_it_sleeps_had_come_up() -> None:
    life = walk(Life(start_timeout=100, state=State.READY, crashes=4, failed_starts=0), (Event.SLEEP, 10.0))
    assert walk(life, (Event.EXITED, 11.0)).failed_starts == 0
    assert walk(life, (Event.SLEPT, 11.0), (Event.EXITED, 12.0)).failed_starts == 0
    assert walk(life, (Event.SLEPT, 11.0), (Event.EXITED, 12.0)).crashes == 5
    assert walk(life, (Event.SLEPT, 11.0), (Event.EXITED, 11.0 + T.forgiven)).crashes == 1


@given(st.lists(st.tuples(st.sampled_from(Event), st.floats(0, 100)), max_size=60))
def test_whatever_happens_the_life_stays_sound(history: list[tuple[Event, float]]) -> None:
    life, now, stopped = Life(start_timeout=50), 0.0, False
    for event, later in history:
        now += later
        before, (life, action) = life, step(life, event, now, T)
        waits = life.state in TIMED
        assert (life.wake is not None) is waits
        assert (action is Action.NONE) is (life == before)
        if action is Action.MEND:
            assert life.wake is not None
            assert T.backoff <= life.wake - now + 1e-9
            assert life.wake - now <= T.backoff_most + 1e-9
        # Once asked to stop it only goes on to off, until it is started again.
        stopped = (stopped or action in (Action.DRAIN, Action.END)) and action is not Action.ASK
        if stopped:
            assert life.state in (State.DRAINING, State.OFF)
