"""The tuner finds the best number of threads, also after that changes, and spends little on looking."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumen.workers.llamacpp.threads import Tuner


def drive(
    tuner: Tuner, cost: Callable[[int], float], seconds: float, now: float = 0.0
) -> tuple[float, dict[int, float]]:
    """Decodes of 16 rows until `seconds` have gone by; the time at the end, and the time spent on each number."""
    spent: dict[int, float] = {}
    end = now + seconds
    while now < end:
        threads = tuner.choose(16, now)
        took = cost(threads)
        now += took
        tuner.learn(16, took, now)
        spent[threads] = spent.get(threads, 0.0) + took
    return now, spent


@settings(max_examples=30)
@given(st.lists(st.floats(0.5, 20), min_size=4, max_size=4), st.sampled_from([0.004, 1.0]))
def test_it_settles_where_neither_neighbour_is_better(factors: list[float], short: float) -> None:
    costs = dict(zip([1, 2, 4, 8], [factor * 0.01 for factor in factors], strict=True))
    tuner = Tuner(8, 0.01, short)  # begins with all threads, or with one
    now, _ = drive(tuner, costs.__getitem__, 400 * max(costs.values()) + 60)
    _, spent = drive(tuner, costs.__getitem__, 200 * max(costs.values()) + 200, now)
    settled = max(spent, key=lambda threads: spent[threads] / costs[threads])
    ladder = [1, 2, 4, 8]
    at = ladder.index(settled)
    for other in ladder[max(0, at - 1) : at + 2]:
        assert costs[other] >= 0.9 * costs[settled]


def test_looking_costs_little_where_more_threads_are_a_disaster() -> None:
    tuner = Tuner(2, 0.0004, 0.004)
    _, spent = drive(tuner, {1: 0.006, 2: 0.6}.__getitem__, 300)
    assert spent[2] < 0.03 * spent[1]


@pytest.mark.parametrize("before", [1, 2])
def test_it_notices_when_the_other_becomes_better(before: int) -> None:
    tuner = Tuner(2, 0.0004, 0.004)
    now, spent = drive(tuner, {1: 0.006, 2: 0.004 if before == 2 else 0.5}.__getitem__, 30)
    assert max(spent, key=spent.__getitem__) == before
    _, spent = drive(tuner, {1: 0.006, 2: 0.5 if before == 2 else 0.004}.__getitem__, 120, now)
    assert max(spent, key=spent.__getitem__) != before
    assert before == 1 or spent[2] < 3  # a disaster is left at once


def test_a_stall_now_and_then_is_no_reason_to_leave_the_better_number() -> None:
    """Another program takes a processor for some milliseconds every second."""
    tuner, now = Tuner(2, 0.0004 / 16, 0.004), 0.0
    spent = {1: 0.0, 2: 0.0}
    for stalls in range(60):
        now, one = drive(tuner, {1: 0.0004, 2: 0.0003}.__getitem__, 1.0, now)
        tuner.choose(16, now)
        now += 0.005
        tuner.learn(16, 0.005, now)
        for threads, seconds in one.items() if stalls > 5 else ():
            spent[threads] += seconds
    assert spent[2] > 20 * spent[1]


def test_that_threads_have_to_be_woken_is_not_held_against_them() -> None:
    tuner, last = Tuner(2, 0.0004 / 16, 0.004), 1

    def cost(threads: int) -> float:
        nonlocal last
        woken, last = threads > last, threads
        return (0.004 if woken else 0.0003) if threads == 2 else 0.0004

    _, spent = drive(tuner, cost, 20.0)
    assert spent[2] > 10 * spent[1]


def test_prompts_that_come_seldom_are_not_tried_out() -> None:
    tuner = Tuner(2, 0.0004, 0.004)
    for minute in range(20):
        assert tuner.choose(512, 60.0 * minute) == 2
        tuner.learn(512, 0.1, 60.0 * minute + 0.1)


def test_short_decodes_begin_on_one_thread_and_long_ones_on_all() -> None:
    tuner = Tuner(6, 0.001, 0.004)
    assert tuner.choose(1, 0.0) == 1
    assert tuner.choose(512, 0.0) == 6
    assert Tuner(1, 0.001, 0.004).choose(512, 5.0) == 1
