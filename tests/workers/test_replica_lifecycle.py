"""The life of a replica, state by state and event by event."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumen.workers.lifecycle import TABLE, Action, Event, Life, State, Timing, backoff, expiry, step

T = Timing()
# One row a state, one column an event: where it goes and what is done. "-": nothing changes.
EVENTS = ["START", "LISTENING", "ANSWERED", "FAILED", "EXITED", "LATE", "HUNG", "DUE", "STOP"]
EXPECTED = """
OFF       STARTING:LAUNCH  -              -            -             -             -             -             -                -
STARTING  -                PROBING:PROBE  -            CRASHED:MEND  CRASHED:MEND  CRASHED:MEND  -             -                DRAINING:DRAIN
PROBING   -                -              READY:SERVE  -             CRASHED:MEND  CRASHED:MEND  -             -                DRAINING:DRAIN
READY     -                -              -            -             CRASHED:MEND  -             CRASHED:MEND  -                DRAINING:DRAIN
DRAINING  -                -              -            -             OFF:END       -             -             -                -
CRASHED   -                -              -            -             -             -             -             STARTING:LAUNCH  OFF:END
"""  # noqa: E501
CASES = [
    (State[row.split()[0]], Event[event], cell)
    for row in EXPECTED.strip().splitlines()
    for event, cell in zip(EVENTS, row.split()[1:], strict=True)
]


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
    life = walk(Life(start_timeout=100), (Event.START, 0.0))
    now, pauses = 0.0, []
    for _ in range(10):
        life = walk(life, (Event.EXITED, now))
        assert life.wake is not None
        pauses.append(life.wake - now)
        now = life.wake
        life = walk(life, (Event.DUE, now))
    assert pauses == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert life.restarts == 10
    assert backoff(10**6, T) == 30


def test_crashes_are_forgiven_after_a_minute_of_health_and_not_before() -> None:
    def crash_after(health: float) -> Life:
        life = Life(start_timeout=100, crashes=5, failed_starts=5)
        return walk(life, (Event.START, 0), (Event.LISTENING, 1), (Event.ANSWERED, 2), (Event.EXITED, 2 + health))

    assert (crash_after(59.9).crashes, crash_after(60).crashes) == (6, 1)
    assert crash_after(0.1).failed_starts == 0  # it had come up


def test_starting_has_one_limit_for_loading_and_probing_together() -> None:
    life = walk(Life(start_timeout=100), (Event.START, 10.0))
    assert (life.wake, expiry(life.state)) == (110, Event.LATE)
    life = walk(life, (Event.LISTENING, 60.0))
    assert life.wake == 110
    life = walk(life, (Event.LATE, 110.0))
    assert (life.state, life.failed_starts, expiry(life.state)) == (State.CRASHED, 1, Event.DUE)
    life = walk(life, (Event.DUE, life.wake or 0), (Event.LISTENING, 120.0), (Event.ANSWERED, 121.0))
    assert (life.state, life.wake, life.failed_starts) == (State.READY, None, 0)


@given(st.lists(st.tuples(st.sampled_from(Event), st.floats(0, 100)), max_size=60))
def test_whatever_happens_the_life_stays_sound(history: list[tuple[Event, float]]) -> None:
    life, now, stopped = Life(start_timeout=50), 0.0, False
    for event, later in history:
        now += later
        before, (life, action) = life, step(life, event, now, T)
        waits = life.state in (State.STARTING, State.PROBING, State.CRASHED)
        assert (life.wake is not None) is waits
        assert (action is Action.NONE) is (life == before)
        if action is Action.MEND:
            assert life.wake is not None
            assert T.backoff <= life.wake - now + 1e-9
            assert life.wake - now <= T.backoff_most + 1e-9
        # Once asked to stop it only goes on to off, until it is started again.
        stopped = (stopped or action in (Action.DRAIN, Action.END)) and action is not Action.LAUNCH
        if stopped:
            assert life.state in (State.DRAINING, State.OFF)
