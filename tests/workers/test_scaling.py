"""How many replicas: on a clock of its own, against made-up traffic."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lumen.workers.scaling import DOWN_AFTER, UP_AFTER, UP_WAIT, USUAL_SLOTS, Load, Trend, look_again, scale, wait


def load(in_flight: int, ready: int = 1, coming: int = 0, releases: tuple[float, ...] = ()) -> Load:
    return Load(in_flight, ready, coming, 4, releases)


def test_the_wait_is_what_is_ahead_by_the_pace_of_late() -> None:
    assert wait(load(3), 0.0) == 0.0
    assert wait(load(4), 0.0) == 0.0  # full, but nobody waits yet; and who comes would wait for an unknown time
    assert wait(load(5), 0.0) == float("inf")
    assert wait(load(0, ready=0), 0.0) == 0.0
    assert wait(load(9, releases=(96.0, 97.0, 98.0, 99.0)), 100.0) == 5.0  # one a second
    assert wait(load(9, releases=(10.0, 11.0)), 100.0) == float("inf")  # long ago
    assert wait(Load(USUAL_SLOTS, 1, 0, 0), 0.0) == 0.0  # an engine that does not tell


def run(loads: list[tuple[float, int]], low: int = 1, high: int = 3, start: float = 2.0) -> list[tuple[float, int]]:
    """(seconds, requests in flight) one after another → (when, how many then); a start takes `start` seconds."""
    trend, now, ready, coming = Trend(), 0.0, low, 0.0
    changes: list[tuple[float, int]] = []
    for seconds, in_flight in loads:
        end = now + seconds
        while now < end:
            now = round(now + 0.25, 2)
            if coming and now >= coming:
                ready, coming = ready + 1, 0.0
            trend, change = scale(trend, load(in_flight, ready, int(coming > 0)), low, high, now)
            if change > 0:
                coming = now + start
            elif change < 0:
                ready -= 1
            if change:
                changes.append((now, ready + (change > 0)))
    return changes


def test_up_within_seconds_of_a_queue_and_down_within_seconds_of_quiet() -> None:
    changes = run([(10.0, 7), (60.0, 0)])
    (up, two), (down, one) = changes
    assert (two, one) == (2, 1)
    assert up <= UP_AFTER + 0.5
    assert 10 + DOWN_AFTER <= down <= 10 + DOWN_AFTER + 0.5


def test_a_load_that_comes_and_goes_does_not_flap() -> None:
    # Bursts shorter than it takes to believe in them, and lulls likewise.
    assert run([(0.75, 9), (1.0, 0)] * 50) == []
    assert run([(20.0, 7), *[(5.0, 0), (5.0, 7)] * 30]) == [(1.25, 2)]


def test_it_stays_within_its_bounds_and_starts_one_at_a_time() -> None:
    assert [count for _, count in run([(100.0, 500)])] == [2, 3]
    assert run([(100.0, 500)], high=1) == []
    assert run([(100.0, 0)], low=2) == []


def test_a_load_on_the_edge_settles() -> None:
    # What two replicas carry without a queue is not given to one: it would queue again at once.
    for in_flight in range(30):
        changes = run([(300.0, in_flight)])
        assert len(changes) <= 2
        assert all(count > 1 for _, count in changes)


@given(st.integers(0, 50), st.integers(0, 5), st.integers(0, 2), st.integers(1, 3), st.integers(3, 5), st.floats(0, 99))
def test_the_trend_says_when_to_look_again(
    in_flight: int, ready: int, coming: int, low: int, high: int, now: float
) -> None:
    seen = load(in_flight, ready, coming)
    trend, change = scale(Trend(), seen, low, high, now)
    assert change == 0
    due = look_again(trend, now)
    if due is None:
        assert trend == Trend()
        return
    assert due > now
    _, change = scale(trend, seen, low, high, due + 1e-6)
    assert change != 0
    assert ready + change <= max(high, ready) and ready + change >= min(low, ready)
    assert (change > 0) == (wait(seen, due) > UP_WAIT)
