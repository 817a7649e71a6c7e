from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from lumen.core.breaker import (
    ASKED_SPAN,
    ENOUGH,
    FORGIVEN,
    IN_A_ROW,
    JITTER,
    LONGEST,
    LONGEST_ASKED,
    NEXT,
    PATIENCE,
    SHORT,
    SLOW_OF,
    WINDOW,
    Breaker,
    Event,
    State,
    Verdict,
    judge,
)
from lumen.core.errors import (
    BrokenError,
    ConnectError,
    LumenError,
    MalformedError,
    RefusedError,
    Retry,
    SilentError,
    UnavailableError,
)
from tests.core.breakers import T, fail, half_open, in_state, opened, state_of


def trip(breaker: Breaker, ticket: int) -> None:
    for _ in range(IN_A_ROW):
        fail(breaker, T)


EVENTS: dict[Event, Callable[[Breaker, int], object]] = {
    Event.SUCCESS: lambda b, ticket: b.succeeded(T, T, ticket),
    Event.FAILURE: lambda b, ticket: fail(b, T, ticket=ticket),
    Event.TRIP: trip,
    Event.ASKED: lambda b, ticket: b.asked_for(T, T, 60.0, "asked", draw=0.0),
    Event.TICKET: lambda b, ticket: b.enter(T),
    Event.ALIVE: lambda b, ticket: b.alive(T),
    Event.EJECT: lambda b, ticket: b.eject(T, None, "operator"),
    Event.DRAIN: lambda b, ticket: b.drain(T, "operator"),
    Event.RESTORE: lambda b, ticket: b.restore(T),
}
# The table at the top of breaker.py, written down a second time: − is "takes no notice".
TABLE = """
             success    failure   trip   asked  ticket     alive      eject    drain    restore
closed       closed     closed    open   open   closed     -          ejected  drained  closed
open         closed     -         -      open   half_open  half_open  ejected  drained  closed
half_open    closed     open      -      open   half_open  -          ejected  drained  closed
ejected      -          -         -      -      half_open  -          ejected  drained  closed
drained      -          -         -      -      -          -          ejected  drained  closed
"""


def cells() -> list[tuple[State, Event, State]]:
    head, *rows = [line.split() for line in TABLE.strip().splitlines()]
    return [
        (State(row[0]), Event(event), State(row[0] if cell == "-" else cell))
        for row in rows
        for event, cell in zip(head, row[1:], strict=True)
    ]


@pytest.mark.parametrize(("state", "event", "then"), cells())
def test_the_table(state: State, event: Event, then: State) -> None:
    assert NEXT[state].get(event, state) is then
    breaker, ticket = in_state(state)
    EVENTS[event](breaker, ticket)
    assert breaker.state is then


def test_the_table_is_whole() -> None:
    assert {(state, event) for state, event, _ in cells()} == {(s, e) for s in State for e in Event}


# -- what opens it ---------------------------------------------------------------------------------------------


def test_failures_in_a_row() -> None:
    breaker = Breaker(T)
    for _ in range(IN_A_ROW - 1):
        fail(breaker, T)
    breaker.succeeded(T, T, 0)
    for _ in range(IN_A_ROW - 1):
        fail(breaker, T)
    assert state_of(breaker) is State.CLOSED
    fail(breaker, T + 1)
    assert (breaker.state, breaker.since) == (State.OPEN, T + 1)
    assert "5 failures in a row: broke" in breaker.why


def test_half_of_at_least_ten() -> None:
    breaker = Breaker(T)
    for i in range(ENOUGH // 2 - 1):
        breaker.succeeded(T + i, T, 0)
        fail(breaker, T + i)
    breaker.succeeded(T + 9, T, 0)
    assert state_of(breaker) is State.CLOSED
    assert breaker.error_rate(T + 9) == pytest.approx(4 / 9)
    fail(breaker, T + 9)
    assert state_of(breaker) is State.OPEN
    assert "5 of 10" in breaker.why


def test_what_is_older_than_the_window_does_not_count() -> None:
    breaker = Breaker(T)
    for i in range(4):
        breaker.succeeded(T, T, 0)
        fail(breaker, T + i)
    later = T + WINDOW + 5
    breaker.succeeded(later, T, 0)
    fail(breaker, later)
    assert state_of(breaker) is State.CLOSED
    assert breaker.error_rate(later) == 0.5


def test_the_window_slides() -> None:
    breaker = Breaker(T)
    for i in range(40):
        breaker.succeeded(T + i, T + i, 0)
    fail(breaker, T + 40)
    # Slots of five seconds: the last thirty seconds are between 25 and 30 outcomes.
    assert 1 / 31 <= breaker.error_rate(T + 40) <= 1 / 25


def test_half_of_the_recent_first_tokens_slow() -> None:
    breaker = Breaker(T)
    for i in range(SLOW_OF // 2 - 1):
        breaker.paced(T + i, T + i, slow=True, draw=0.0)
        breaker.paced(T + i, T + i, slow=False, draw=0.0)
    assert state_of(breaker) is State.CLOSED
    breaker.paced(T + 20, T + 20, slow=True, draw=0.0)
    assert state_of(breaker) is State.OPEN
    assert "slower" in breaker.why


def test_slow_first_tokens_far_apart_say_nothing() -> None:
    breaker = Breaker(T)
    for i in range(5 * SLOW_OF):
        breaker.paced(T + 61 * i, T + 61 * i, slow=True, draw=0.0)
    assert state_of(breaker) is State.CLOSED


def test_what_began_before_says_nothing() -> None:
    breaker = opened(T)
    breaker.succeeded(T + 1, T - 5, 0)
    assert state_of(breaker) is State.OPEN
    breaker.succeeded(T + 1, T + 0.5, 0)
    assert state_of(breaker) is State.CLOSED
    for _ in range(50):
        fail(breaker, T + 2, began=T - 5)
    assert state_of(breaker) is State.CLOSED


# -- how long --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draw", [0.0, 0.5, 0.999])
def test_ejections_double_up_to_the_longest(draw: float) -> None:
    breaker, now = Breaker(T), T
    for _ in range(IN_A_ROW):
        fail(breaker, now, draw=draw)
    for wanted in (2.0, 4.0, 8.0, 10.0, 10.0):
        assert breaker.until - now == pytest.approx(wanted * (1 - JITTER * draw))
        assert not breaker.admits(breaker.until - 0.01)
        now = breaker.until
        ticket = breaker.enter(now)
        assert ticket
        fail(breaker, now, ticket=ticket, draw=draw)


@pytest.mark.parametrize(("served", "span"), [(0.0, 10.0), (FORGIVEN, 8.0), (2 * FORGIVEN, 4.0), (300.0, 2.0)])
def test_service_forgives(served: float, span: float) -> None:
    breaker = opened()
    for _ in range(4):
        now = breaker.until
        ticket = breaker.enter(now)
        assert ticket
        fail(breaker, now, ticket=ticket)
    now = breaker.until
    ticket = breaker.enter(now)
    assert ticket
    breaker.succeeded(now, now, ticket)
    assert state_of(breaker) is State.CLOSED
    now += served
    for _ in range(IN_A_ROW):
        fail(breaker, now)
    assert breaker.until - now == span


def test_asked_until_then() -> None:
    breaker = Breaker(T)
    breaker.asked_for(T, T, 42.0, "status 429, wait 42 s", draw=0.9)
    assert not breaker.admits(T + 41.9)
    assert breaker.admits(T + 42)
    breaker.asked_for(T + 1, T, 5.0, "status 429, wait 5 s", draw=0.9)
    assert breaker.until == T + 42
    breaker.asked_for(T + 1, T, 1e9, "for ever", draw=0.9)
    assert breaker.until == T + 1 + LONGEST_ASKED


def test_asked_without_a_time_grows() -> None:
    breaker, now = Breaker(T), T
    for span in (ASKED_SPAN, LONGEST, LONGEST):
        breaker.asked_for(now, now, None, "status 429", draw=0.0)
        assert breaker.until - now == span
        # The others that were refused at the same time add nothing.
        breaker.asked_for(now + 0.1, now, None, "status 429", draw=0.0)
        assert breaker.until - now == span
        now = breaker.until
        assert breaker.enter(now)


# -- the probe -------------------------------------------------------------------------------------------------


def test_one_probe_at_a_time() -> None:
    breaker, first = half_open()
    assert breaker.enter(T) is None
    assert breaker.enter(T + PATIENCE - 0.01) is None
    breaker.released(first + 1)
    assert breaker.enter(T + 1) is None
    breaker.released(first)
    second = breaker.enter(T + 1)
    assert second
    assert second != first
    # The first one's second end must not free the second's place.
    breaker.released(first)
    fail(breaker, T + 1, began=T, ticket=first)
    assert breaker.enter(T + 1) is None
    breaker.succeeded(T + 2, T + 1, second)
    assert breaker.enter(T + 2) == 0


def test_a_probe_that_shows_nothing_lets_the_next_one_in() -> None:
    breaker, first = half_open()
    second = breaker.enter(T + PATIENCE)
    assert second
    fail(breaker, T + 60, began=T, ticket=first)
    assert state_of(breaker) is State.HALF_OPEN
    fail(breaker, T + 60, began=T + PATIENCE, ticket=second)
    assert state_of(breaker) is State.OPEN
    assert "probe failed" in breaker.why


def test_others_failures_do_not_lengthen_an_ejection() -> None:
    breaker = opened()
    until = breaker.until
    for i in range(20):
        fail(breaker, T + i / 20)
    assert breaker.until == until


def test_alive_is_believed_once() -> None:
    breaker = opened()
    assert breaker.alive(T + 0.5)
    ticket = breaker.enter(T + 0.5)
    assert ticket
    fail(breaker, T + 0.6, ticket=ticket)
    assert not breaker.alive(T + 0.7)
    ticket = breaker.enter(breaker.until)
    assert ticket
    breaker.succeeded(T + 9, T + 9, ticket)
    for _ in range(IN_A_ROW):
        fail(breaker, T + 10)
    assert breaker.alive(T + 10.5)


def test_alive_does_not_shorten_what_a_target_asked_for() -> None:
    breaker = Breaker(T)
    breaker.asked_for(T, T, 60.0, "asked", draw=0.0)
    assert not breaker.alive(T + 1)
    assert breaker.until == T + 60


# -- operators -------------------------------------------------------------------------------------------------


def test_ejected_by_an_operator() -> None:
    breaker = Breaker(T)
    breaker.eject(T, None, "by hand")
    breaker.succeeded(T + 1, T + 1, 0)
    assert (breaker.state, breaker.why, breaker.until) == (State.EJECTED, "by hand", math.inf)
    breaker.eject(T, 30.0, "for a while")
    assert not breaker.admits(T + 29)
    assert breaker.enter(T + 30)
    breaker.restore(T + 31)
    assert (breaker.state, breaker.why, breaker.growth) == (State.CLOSED, "", 0)


def test_drained_is_never_asked() -> None:
    breaker = Breaker(T)
    breaker.drain(T, "by hand")
    assert breaker.enter(T + 1e9) is None


# -- what an error says ----------------------------------------------------------------------------------------


def refused(status: int, retry_after: float | None = None, retry: Retry = Retry.OTHER) -> RefusedError:
    return RefusedError("", phase="headers", upstream_status=status, retry=retry, retry_after=retry_after)


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (refused(400, retry=Retry.NEVER), Verdict.NEUTRAL),
        (refused(404, retry=Retry.NEVER), Verdict.NEUTRAL),
        (refused(400), Verdict.NEUTRAL),
        (refused(413), Verdict.NEUTRAL),
        (RefusedError("", phase="encode", upstream_status=0), Verdict.NEUTRAL),
        (UnavailableError("", status=429, code="queue_full"), Verdict.NEUTRAL),
        (UnavailableError("", code="model_not_ready"), Verdict.FAILURE),
        (refused(429), Verdict.ASKED),
        (refused(429, SHORT), Verdict.FAILURE),
        (refused(429, SHORT + 0.1), Verdict.ASKED),
        (refused(503, 30.0), Verdict.ASKED),
        (refused(503), Verdict.FAILURE),
        (refused(500, retry=Retry.SAME), Verdict.FAILURE),
        (refused(401), Verdict.FAILURE),
        (refused(404), Verdict.FAILURE),
        (refused(200), Verdict.FAILURE),
        (ConnectError("", phase="connect"), Verdict.FAILURE),
        (SilentError("", phase="first_token"), Verdict.FAILURE),
        (BrokenError("", phase="stream"), Verdict.FAILURE),
        (MalformedError("", phase="body"), Verdict.FAILURE),
    ],
)
def test_what_an_error_says(error: LumenError, verdict: Verdict) -> None:
    assert judge(error) is verdict
