"""What is remembered of models."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumen.workers.habits import HOUR, WEEK, Costs, Habits, Hours, Rate, dump, load

MONDAY = 1_700_000_000 // WEEK * WEEK + 9 * HOUR


def test_the_odds_follow_the_rate_and_fade() -> None:
    rate = Rate()
    assert rate.odds(0.0) == 0.0
    for second in range(0, 600, 10):
        rate.add(float(second))
    busy = rate.odds(600.0)
    assert 0.9 < busy < 1.0
    assert rate.odds(1200.0) < busy
    assert rate.odds(20_000.0) < 1e-9
    once = Rate()
    once.add(600.0)
    assert 0 < once.odds(600.0) < busy


def test_the_hour_that_is_asked_for_every_week_is_foreseen_from_the_third_week_on() -> None:
    hours = Hours()
    for week in range(6):
        now = MONDAY + week * WEEK
        assert hours.odds(now) == pytest.approx(1.0 if week >= 2 else 0.0)
        assert hours.odds(now + 3 * HOUR) == 0.0
        for minute in range(50):
            hours.add(now + minute * 60)
        # What happens in this hour says nothing about it beforehand.
        assert hours.odds(now + 3000) == pytest.approx(1.0 if week >= 2 else 0.0)


def test_every_other_week_is_half_and_what_ended_fades() -> None:
    hours = Hours()
    for week in range(0, 40, 2):
        hours.add(MONDAY + week * WEEK)
    assert 0.4 < hours.odds(MONDAY + 40 * WEEK) < 0.6
    assert hours.odds(MONDAY + 60 * WEEK) < 0.01


@given(st.lists(st.floats(0, 20 * WEEK), max_size=60), st.floats(0, 30 * WEEK))
def test_odds_are_odds_in_whatever_order_the_clock_runs(times: list[float], now: float) -> None:
    hours = Hours()
    for time in times:
        hours.add(time)
    assert 0.0 <= hours.odds(now) <= 1.0
    again = Hours.load(json.loads(json.dumps(hours.dump())))
    assert again.odds(now) == hours.odds(now)


def test_costs_are_measured_and_until_then_guessed() -> None:
    costs = Costs()
    assert costs.of("off", 8 * 10**9) == 10.0
    assert costs.of("asleep", 8 * 10**9) == 1.0
    costs.add("off", 4.0)
    costs.add("off", 2.0)
    assert costs.of("off", 8 * 10**9) == 3.0


def test_what_was_written_is_read_and_the_rest_is_left_out() -> None:
    known = {"m": Habits(), "n": Habits()}
    known["m"].costs.add("off", 1.5)
    known["m"].hours.add(MONDAY)
    kept = json.loads(json.dumps(dump(known)))
    again = load(kept)
    assert again["m"].costs.seconds == {"off": 1.5}
    assert again["m"].hours.dump() == known["m"].hours.dump()
    assert again["n"].costs.seconds == {}


@pytest.mark.parametrize(
    "kept",
    [
        None, 3, [], {}, {"version": 2, "models": {"m": {}}}, {"version": 1, "models": []},
        {"version": 1, "models": {"m": 5, "n": {"wake": 5, "hours": [7, [1, 2], ["a", 1, 1], [0, 1, 1]]}}},
        {"version": 1, "models": {"n": {"wake": {"off": math.nan, "asleep": -1}, "hours": [[1, 1, math.nan]]}}},
    ],
)  # fmt: skip
def test_nonsense_costs_what_was_learned_and_nothing_else(kept: Any) -> None:
    assert all(one.costs.seconds == {} and one.hours.odds(1e9) == 0.0 for one in load(kept).values())


def words() -> st.SearchStrategy[Any]:
    plain = st.none() | st.booleans() | st.floats() | st.integers(-(2**70), 2**70) | st.text(max_size=5)
    keys = st.sampled_from(["version", "models", "wake", "hours", "began", "off"])
    return st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4))


@given(words())
def test_anything_may_stand_in_the_file(kept: Any) -> None:
    for one in load({"version": 1, "models": {"m": kept}}).values():
        assert 0 <= one.hours.odds(2e9) <= 1
        one.hours.add(2e9)
        assert one.costs.of("off", 1) > 0
