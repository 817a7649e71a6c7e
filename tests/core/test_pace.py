from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumen.core.pace import ENOUGH, IN_A_ROW, ONE_IN, PAUSE, PENDING, RECENT, STALE, Pace

WANTED = 0.3
SLOW, QUICK = 2.0, 0.1


def paced(*seconds: float, at: float = 100.0) -> Pace:
    pace = Pace()
    for one in seconds:
        pace.add(one, at)
    return pace


def test_what_is_not_known_is_admitted() -> None:
    assert Pace().admits(WANTED, 0.0, 0.0)
    assert paced(*[SLOW] * (ENOUGH - 1)).admits(WANTED, 100.0, 99.0)
    assert not paced(*[SLOW] * ENOUGH).admits(WANTED, 100.0, 99.0)


def test_the_median_decides() -> None:
    assert not paced(*[QUICK] * 8, *[SLOW] * 8).misses(WANTED)
    assert paced(*[QUICK] * 7, *[SLOW] * 9).misses(WANTED)
    # Only of the last ones.
    assert not paced(*[SLOW] * 100, *[QUICK] * 8, SLOW).misses(WANTED)
    assert paced(*[QUICK] * 100, *[SLOW] * 9).misses(WANTED)
    assert paced(0.1, 0.2, 0.3, 0.4, 0.5).usual() == 0.3


def test_after_three_in_time_it_is_back() -> None:
    pace = paced(*[SLOW] * RECENT)
    now = 100.0 + STALE
    for tries in range(IN_A_ROW):
        assert pace.misses(WANTED)
        # One at a time: the next only when this one's first token has come.
        assert pace.admits(WANTED, now, 100.0)
        assert not pace.admits(WANTED, now + 0.05, now)
        pace.add(QUICK, now + 0.1)
        assert tries == IN_A_ROW - 1 or pace.admits(WANTED, now + 0.1, now)
        now += 0.2
    assert not pace.misses(WANTED)
    assert all(pace.admits(WANTED, now, now) for _ in range(50))


def test_one_request_in_twenty_tries_it_and_not_too_often() -> None:
    pace = paced(*[SLOW] * RECENT)
    tried = []
    begun = 99.0
    for number in range(2000):
        now = 100.0 + number * 0.01
        if pace.admits(WANTED, now, begun):
            tried.append(number)
            begun = now
            pace.add(SLOW, now)
    assert [after - before for before, after in pairwise(tried)] == [500, 500]
    # With fewer requests than that, the share counts.
    pace, tried, begun = paced(*[SLOW] * RECENT), [], 99.0
    for number in range(100):
        now = 100.0 + number
        if pace.admits(WANTED, now, begun):
            tried.append(number)
            begun = now
            pace.add(SLOW, now)
    assert tried == [ONE_IN - 1 + i * ONE_IN for i in range(5)]
    assert PAUSE < ONE_IN


def test_a_try_that_came_to_nothing_makes_room_for_another() -> None:
    pace = paced(*[SLOW] * RECENT)
    assert pace.admits(WANTED, 100.0 + STALE, 100.0)
    begun = 100.0 + STALE
    assert not pace.admits(WANTED, begun + PENDING - 0.1, begun)
    assert pace.admits(WANTED, begun + PENDING, begun)


def test_with_hardly_any_requests_it_is_tried_when_nothing_was_heard_of_it() -> None:
    pace = paced(*[SLOW] * RECENT)
    assert not pace.admits(WANTED, 100.0 + STALE - 1, 99.0)
    assert pace.admits(WANTED, 100.0 + STALE, 99.0)


@given(st.lists(st.floats(0.0, 10.0), max_size=40), st.floats(0.001, 10.0))
def test_it_is_left_out_only_with_reason(seconds: list[float], objective: float) -> None:
    pace = paced(*seconds)
    last = seconds[-RECENT:]
    late = sum(one > objective for one in last)
    assert pace.misses(objective) <= (len(last) >= ENOUGH and 2 * late > len(last))
    if last and all(one > objective for one in last) and len(last) >= ENOUGH:
        assert pace.misses(objective)
        usual = pace.usual()
        # What would have been needed is what it is told by.
        assert usual is not None and not pace.misses(usual)


@given(st.lists(st.floats(0.0, 100.0), max_size=40), st.floats(0.0, 1e10))
def test_it_survives_a_restart(seconds: list[float], at: float) -> None:
    pace = paced(*seconds, at=at)
    again = Pace.load(json.loads(json.dumps(pace.dump())))
    assert (again.dump(), again.usual()) == (pace.dump(), pace.usual())


@pytest.mark.parametrize("kept", [{}, {"last": 3, "at": 0}, {"last": ["x"], "at": 0}, {"last": [-1], "at": 0}, None])
def test_what_is_no_pace_is_refused(kept: Any) -> None:
    with pytest.raises(ValueError, match=r"pace|float"):
        Pace.load(kept)
