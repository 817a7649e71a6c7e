from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lumen.core.rate import Bucket, Gate, RateLimits, Wait

SECOND = 1_000_000


def test_a_minute_of_requests_at_once_and_then_one_a_second() -> None:
    gate = Gate(RateLimits(rpm=60), 0)
    assert [gate.enter(0, 0) for _ in range(60)] == [None] * 60
    assert gate.enter(0, 0) == Wait("rpm", SECOND)
    assert gate.enter(0, SECOND - 1) == Wait("rpm", 1)
    assert gate.enter(0, SECOND) is None
    assert gate.enter(0, SECOND) == Wait("rpm", SECOND)


def test_tokens_are_corrected_when_they_are_known() -> None:
    gate = Gate(RateLimits(tpm=600), 0)
    assert gate.enter(500, 0) is None
    assert gate.enter(200, 0) == Wait("tpm", 10 * SECOND)
    gate.leave(500, 100, 0)
    assert gate.enter(500, 0) is None
    # It used more than was thought: the next one waits the debt off.
    gate.leave(500, 1100, 0)
    assert gate.enter(1, 0) == Wait("tpm", 60 * SECOND + SECOND // 10)


def test_a_request_above_the_minute_is_let_in_when_the_bucket_is_full() -> None:
    gate = Gate(RateLimits(tpm=100), 0)
    assert gate.enter(5000, 0) is None
    assert gate.enter(1, 0) is not None


def test_concurrency_counts_who_is_inside_also_over_a_change() -> None:
    gate = Gate(RateLimits(concurrency=2), 0)
    assert gate.enter(1, 0) is None
    assert gate.enter(1, 0) is None
    assert gate.enter(1, 0) == Wait("concurrency", SECOND)
    gate.change(RateLimits(concurrency=3), 0)
    assert gate.enter(1, 0) is None
    assert gate.enter(1, 0) is not None
    gate.leave(1, 1, 0)
    assert gate.enter(1, 0) is None


def test_a_refused_request_takes_nothing() -> None:
    gate = Gate(RateLimits(rpm=10, tpm=100, concurrency=1), 0)
    assert gate.enter(60, 0) is None
    for _ in range(50):
        assert gate.enter(60, 0) is not None
    gate.leave(60, 60, 0)
    for _ in range(50):
        assert gate.enter(60, 0) == Wait("tpm", 12 * SECOND)
    assert gate.enter(40, 0) is None


def test_a_limit_of_zero_lets_nobody_in() -> None:
    assert Gate(RateLimits(rpm=0), 0).enter(1, 0) is not None
    assert Gate(RateLimits(tpm=0), 0).enter(1, 0) is not None
    assert Gate(RateLimits(concurrency=0), 0).enter(1, 0) is not None


@given(st.integers(1, 1000), st.lists(st.tuples(st.integers(0, 20 * SECOND), st.integers(1, 50)), max_size=60))
def test_no_span_admits_more_than_a_minute_and_what_filled(rate: int, asks: list[tuple[int, int]]) -> None:
    bucket, now, taken = Bucket(rate, 0), 0, 0
    for pause, count in asks:
        now += pause
        wait = bucket.wait(count, now)
        if wait == 0 and count <= rate:
            bucket.take(count, now)
            taken += count
        elif wait and count <= rate:
            # The wait is exact: a microsecond earlier is too early.
            assert bucket.wait(count, now + wait - 1) == 1
            now += wait
            assert bucket.wait(count, now) == 0
        assert taken * 60 * SECOND <= rate * 60 * SECOND + rate * now


def test_a_clock_that_goes_back_fills_nothing() -> None:
    bucket = Bucket(60, 10 * SECOND)
    bucket.take(60, 10 * SECOND)
    assert bucket.wait(1, 5 * SECOND) == SECOND
    assert bucket.wait(1, 10 * SECOND) == SECOND
    assert bucket.wait(1, 11 * SECOND) == 0
