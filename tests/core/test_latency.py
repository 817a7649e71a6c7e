from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumen.core.latency import (
    ENOUGH,
    ENOUGH_TO_HEDGE,
    LONGEST_GUESS,
    SHORTEST_LIMIT,
    Histogram,
    Latency,
    limits,
    stretch,
)

T = 1_700_000_000.0
DEFAULTS = (60.0, 30.0)
NOTHING_SET = (None, None)


def history(first: float = 0.0, gap: float = 0.0, count: int = 200, size: int = 0) -> Latency:
    made = Latency(T)
    for _ in range(count):
        if first:
            made.first_token(first, T, size)
        if gap:
            made.gap.add(gap, T)
    return made


# -- histogram -------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.floats(0.001, 1000.0), min_size=8, max_size=400))
def test_quantiles_are_close(times: list[float]) -> None:
    counted = Histogram(T)
    for seconds in times:
        counted.add(seconds, T)
    # Only whole batches are counted; what is in a batch not full yet is not known.
    known = sorted(times[: round(counted.weight)])
    for share, found in zip((0.50, 0.95, 0.99), counted.quantiles(), strict=True):
        exact = known[max(math.ceil(share * len(known)) - 1, 0)]
        assert exact / 1.1 <= found <= exact * 1.1


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e-9, 1e9])
def test_no_time_is_out_of_range(seconds: float) -> None:
    counted = Histogram(T)
    for _ in range(8):
        counted.add(seconds, T)
    assert all(0.0 < found < 8192.0 for found in counted.quantiles())


def test_a_busy_target_is_sampled_without_bias() -> None:
    counted = Histogram(T)
    # A rhythm of four, which is also how many samples one stands for.
    for _ in range(4000):
        for seconds in (0.01, 0.1, 1.0, 10.0):
            counted.add(seconds, T)
    assert counted.quantiles()[0] == pytest.approx(0.1, rel=0.1)
    assert counted.quantiles()[1] == pytest.approx(10.0, rel=0.1)
    assert counted.weight <= 4096 + 64


def test_old_weather_is_forgotten() -> None:
    counted = Histogram(T)
    for _ in range(1000):
        counted.add(10.0, T)
    for i in range(256):
        counted.add(0.1, T + 7200 + i)
    assert counted.quantiles()[1] > 5.0
    for i in range(256):
        counted.add(0.1, T + 14400 + i)
    assert counted.quantiles()[1] < 0.11


def test_everything_fades_away() -> None:
    counted = Histogram(T)
    for _ in range(1000):
        counted.add(10.0, T)
    assert Histogram.load(counted.dump(), T + 1e6).weight == 0.0


def test_the_clock_stepping_back_loses_nothing() -> None:
    counted = Histogram(T)
    for i in range(64):
        counted.add(1.0, T - 3600 * i)
    assert counted.weight == 64


def test_round_trip() -> None:
    counted = Histogram(T)
    for i in range(1, 65):
        counted.add(i / 100, T)
    loaded = Histogram.load(json.loads(json.dumps(counted.dump())), T)
    assert loaded.quantiles() == counted.quantiles()
    assert loaded.weight == counted.weight
    assert Histogram.load(json.loads(json.dumps(Histogram(T).dump())), T).weight == 0.0


@pytest.mark.parametrize(
    "change",
    [
        {"at": "now"},
        {"at": math.nan},
        {"from": -1},
        {"from": 200},
        {"from": "x"},
        {"counts": [-1.0]},
        {"counts": [math.nan]},
        {"counts": ["1"]},
        {"counts": 7},
        {"counts": [1e9]},
    ],
)
def test_what_is_not_a_histogram_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Histogram.load({"at": T, "from": 3, "counts": [1.0], **change}, T)


# -- limits ----------------------------------------------------------------------------------------------------


def test_what_the_route_sets_is_final() -> None:
    assert limits(history(0.1, 0.1), (0.3, 2.0), DEFAULTS) == (0.3, 2.0)
    assert limits(history(0.1, 0.1), (None, 2.0), DEFAULTS)[1] == 2.0


def test_the_defaults_until_enough_is_known() -> None:
    assert limits(history(0.1, 0.1, ENOUGH - 1), NOTHING_SET, DEFAULTS) == DEFAULTS
    assert limits(history(0.1, 0.1, ENOUGH), NOTHING_SET, DEFAULTS) == (SHORTEST_LIMIT, SHORTEST_LIMIT)


@pytest.mark.parametrize(
    ("usual", "first", "gap"), [(0.05, 5.0, 5.0), (1.0, 8.0, 5.0), (2.0, 16.0, 6.0), (5.0, 40.0, 15.0)]
)
def test_limits_follow_the_target(usual: float, first: float, gap: float) -> None:
    assert limits(history(usual, usual), NOTHING_SET, DEFAULTS) == pytest.approx((first, gap), rel=0.1)


def test_no_limit_is_longer_than_the_default() -> None:
    assert limits(history(20.0, 29.0), NOTHING_SET, DEFAULTS) == DEFAULTS
    assert limits(history(0.1, 0.1), NOTHING_SET, (1.0, 2.0)) == (1.0, 2.0)


def test_a_model_that_thinks_first_gets_more_than_the_default() -> None:
    slow = history(50.0)
    assert limits(slow, NOTHING_SET, DEFAULTS, total=900.0)[0] == pytest.approx(100.0, rel=0.1)
    assert limits(slow, NOTHING_SET, DEFAULTS, total=80.0)[0] == 80.0
    assert limits(history(50.0, count=20), NOTHING_SET, DEFAULTS, total=900.0)[0] == 60.0


def test_a_long_prompt_may_take_longer() -> None:
    usual = history(1.0, size=1000)
    short, double, long = (limits(usual, NOTHING_SET, DEFAULTS, size=size)[0] for size in (10, 2000, 4000))
    assert short == double
    assert long == pytest.approx(4 * short)
    assert limits(usual, NOTHING_SET, DEFAULTS, size=10**9)[0] == 60.0
    assert stretch(10**9, 0.0) == 1.0


def test_a_limit_does_not_lock_itself_in() -> None:
    """A target that turns slower than its limit fails at first; its own silence raises the limit."""
    target = history(0.5)
    now_takes, tries = 12.0, 0
    while (limit := limits(target, NOTHING_SET, DEFAULTS)[0]) < now_takes:
        target.gave_up(limit, T)
        tries += 1
        assert tries <= 20
    assert tries >= 1


def test_a_dead_target_does_not_stretch_the_limit() -> None:
    dead = history(0.5)
    for _ in range(5000):
        dead.gave_up(limits(dead, NOTHING_SET, DEFAULTS, total=900.0)[0], T)
    assert limits(dead, NOTHING_SET, DEFAULTS, total=900.0)[0] <= max(DEFAULTS[0], 2.2 * LONGEST_GUESS)


def test_hedge_delay_is_the_95th_percentile() -> None:
    assert history(0.2, count=ENOUGH_TO_HEDGE - 1).hedge_delay() is None
    assert history(0.2).hedge_delay() == pytest.approx(0.2, rel=0.1)


# -- slow ------------------------------------------------------------------------------------------------------


def test_slow_is_against_the_own_history() -> None:
    target = history(0.5)
    assert not target.first_token(2.0, T)
    assert target.first_token(3.0, T)
    assert not history(5.0).first_token(20.0, T)
    assert history(5.0).first_token(30.0, T)


def test_a_fast_target_is_not_slow_below_a_second() -> None:
    target = history(0.01)
    assert not target.first_token(0.9, T)
    assert target.first_token(1.1, T)


def test_a_young_target_is_never_slow() -> None:
    assert not any(history(0.01, count=count).first_token(100.0, T) for count in (0, 8, 64))


def test_a_long_prompt_is_not_slow() -> None:
    assert not history(0.5, size=1000).first_token(4.0, T, 4000)
    assert history(0.5, size=1000).first_token(4.0, T, 1500)


def test_what_turns_slow_is_seen_for_long_enough_to_trip_and_then_becomes_the_climate() -> None:
    target = history(0.5, count=100)
    verdicts = [target.first_token(10.0, T) for _ in range(200)]
    assert all(verdicts[:20])
    assert not verdicts[-1]


def test_latency_round_trip() -> None:
    target = history(0.5, 0.1, size=1000)
    target.per_token.add(0.01, T)
    loaded = Latency.load(json.loads(json.dumps(target.dump())), T)
    assert limits(loaded, NOTHING_SET, DEFAULTS) == limits(target, NOTHING_SET, DEFAULTS)
    assert loaded.size == 1000
    assert loaded.pace.usual() == target.pace.usual() == 0.5
    assert loaded.first_token(3.0, T)
    # That of a long prompt counts as if it had been an usual one.
    loaded.first_token(2.0, T, 10_000)
    assert loaded.pace.dump()["last"][-2:] == [3.0, 0.2]
    # Files of the version before have no pace.
    assert Latency.load({k: v for k, v in target.dump().items() if k != "pace"}, T).pace.usual() is None
    for name in target.dump().keys() - {"pace"}:
        with pytest.raises(ValueError):
            Latency.load({k: v for k, v in target.dump().items() if k != name}, T)
