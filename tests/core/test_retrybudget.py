from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from lumen.core.retrybudget import ONE_IN, RESERVE, WINDOW, RetryBudget

T = 1_700_000_000.0


def spent(budget: RetryBudget, now: float) -> int:
    count = 0
    while budget.retry(now):
        count += 1
    return count


def test_a_lone_request_can_retry() -> None:
    budget = RetryBudget(T)
    budget.request(T)
    assert budget.left(T) == spent(budget, T) == int(RESERVE)
    assert budget.refused == 1


def test_the_reserve_comes_back() -> None:
    budget = RetryBudget(T)
    spent(budget, T)
    assert spent(budget, T + 3.0) == 0
    assert spent(budget, T + 3.4) == 1
    assert spent(budget, T + 1000) == int(RESERVE)


def test_a_fifth_of_the_traffic() -> None:
    budget = RetryBudget(T)
    for i in range(1000):
        budget.request(T + i / 200)
    assert budget.left(T + 5) == 200 + int(RESERVE)
    assert spent(budget, T + 5) == 200 + int(RESERVE)
    assert budget.left(T + 5) == 0


def test_the_window_slides() -> None:
    budget = RetryBudget(T)
    for _ in range(100):
        budget.request(T)
    assert budget.left(T + WINDOW - 1) == 20 + int(RESERVE)
    assert budget.left(T + WINDOW) == int(RESERVE)
    assert spent(budget, T + WINDOW) == int(RESERVE)


def test_the_clock_stepping_back_starts_anew() -> None:
    budget = RetryBudget(T)
    for _ in range(100):
        budget.request(T)
    spent(budget, T)
    budget.request(T - 3600)
    assert budget.left(T - 3600) == 0
    assert spent(budget, T - 3600 + WINDOW) == int(RESERVE)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.floats(0.0, 4.0)), max_size=300))
def test_never_more_than_the_share_and_the_reserve(steps: list[tuple[bool, float]]) -> None:
    budget, now = RetryBudget(T), T
    requests: list[float] = []
    retries: list[float] = []
    for is_request, passed in steps:
        now += passed
        if is_request:
            budget.request(now)
            requests.append(now)
        elif budget.retry(now):
            retries.append(now)
        # A request counts for up to eleven seconds that begin with its own, and the reserve refills once in ten.
        within = sum(at > now - WINDOW for at in retries)
        seen = sum(at > now - 2 * WINDOW - 1 for at in requests)
        assert within <= seen / ONE_IN + 2 * RESERVE
