from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumen.core import budget
from lumen.core.budget import (
    BOX,
    Account,
    Caps,
    QuotaError,
    Refusal,
    Reservation,
    Scope,
    Window,
    begins,
    index,
    refused,
)
from lumen.core.errors import LumenError
from lumen.core.money import DOLLAR

NOON = int(datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp())
KEY, ROUTE = Scope("key", "key-1"), Scope("route", "fast")


def take(accounts: Sequence[Account], amount: int, now: int = NOON) -> Reservation:
    made = budget.reserve(accounts, amount, now)
    assert isinstance(made, Reservation)
    return made


def deny(accounts: Sequence[Account], amount: int, now: int = NOON) -> Refusal:
    made = budget.reserve(accounts, amount, now)
    assert isinstance(made, Refusal)
    return made


def left(account: Account, now: int = NOON) -> int | None:
    return budget.room(budget.bind([account], now), 0)


def test_a_budget_for_ten_admits_ten_of_a_hundred_at_once() -> None:
    account = Account(BOX, Caps(day=10 * 7))
    made = [budget.reserve([account], 7, NOON) for _ in range(100)]
    assert sum(isinstance(one, Reservation) for one in made) == 10
    assert {one.kind for one in made if isinstance(one, Refusal)} == {"held"}


def test_a_budget_for_ten_admits_ten_in_a_row_and_not_an_eleventh() -> None:
    account = Account(BOX, Caps(credit=10 * 7))
    for _ in range(10):
        budget.settle(take([account], 7), 7)
    assert deny([account], 7) == Refusal("spent", BOX, "credit", 70, 7, 0)
    assert deny([account], 1).kind == "spent"


def test_what_was_held_and_not_used_comes_back() -> None:
    account = Account(BOX, Caps(credit=100))
    for _ in range(50):
        budget.settle(take([account], 51), 1)
    assert deny([account], 51).left == 50
    budget.settle(take([account], 50), 50)
    assert deny([account], 1).left == 0


def test_one_account_that_refuses_keeps_the_others_untouched() -> None:
    key, route = Account(KEY, Caps(day=100)), Account(ROUTE, Caps(day=5))
    assert deny([key, route, Account(BOX)], 6).scope == ROUTE
    assert deny([route, key], 6).scope == ROUTE
    assert take([key], 100)


def test_a_second_settlement_books_nothing() -> None:
    account = Account(BOX, Caps(day=10))
    held = take([account], 10)
    budget.settle(held, 4)
    budget.settle(held, 4)
    assert left(account) == 6


def test_more_than_a_limit_can_never_be_held() -> None:
    for caps, limit in ((Caps(request=9), "request"), (Caps(minute=9), "minute"), (Caps(day=9), "day"),
                        (Caps(month=9), "month"), (Caps(credit=9), "credit")):  # fmt: skip
        account = Account(ROUTE, caps)
        assert deny([account], 10) == Refusal("unsatisfiable", ROUTE, limit, 9, 10, 9)
        take([account], 9)


def test_what_costs_nothing_always_fits() -> None:
    account = Account(BOX, Caps(day=0, request=0))
    take([account], 0)
    overdrawn = Account(BOX, Caps(day=5))
    budget.settle(take([overdrawn], 5), 50)
    take([overdrawn], 0)
    assert deny([overdrawn], 1).left == -45


def test_an_extension_counts_against_the_request_as_a_whole() -> None:
    account = Account(BOX, Caps(request=10, day=100))
    held = take([account], 6)
    refusal = budget.extend(held, 5)
    assert refusal is not None
    assert (refusal.kind, refusal.needed) == ("unsatisfiable", 11)
    assert budget.extend(held, 4) is None
    assert left(account) == 10
    budget.lessen(held, 4)
    budget.settle(held, 6)
    assert account.current(NOON)[1] == budget.Counter(NOON // 86400, spent=6, held=0)


def test_room_for_one_more_try_of_the_same_request() -> None:
    account = Account(BOX, Caps(request=10, day=100))
    held = take([account], 8)
    # Of the 8 held, 3 are spent by the first try: 5 of it and all that is free are there, the request's limit less 3.
    assert budget.room(held, 3) == 7
    assert left(Account(BOX, Caps(day=4))) == 4
    assert left(Account(BOX)) is None


MIDNIGHT = int(datetime(2026, 12, 1, tzinfo=UTC).timestamp())


@pytest.mark.parametrize("caps", [Caps(minute=10), Caps(day=10), Caps(month=10)])
def test_an_answer_that_ends_in_the_next_window_is_booked_in_the_one_it_began_in(caps: Caps) -> None:
    account = Account(BOX, caps)
    late = take([account], 10, MIDNIGHT - 1)
    fresh = take([account], 10, MIDNIGHT)
    budget.settle(late, 10)
    assert deny([account], 1, MIDNIGHT).left == 0
    budget.settle(fresh, 4)
    assert left(account, MIDNIGHT) == 6


def test_what_was_admitted_before_midnight_is_held_and_booked_before_midnight() -> None:
    account = Account(BOX, Caps(day=10))
    early = budget.bind([account], MIDNIGHT - 1)
    budget.settle(take([account], 7, MIDNIGHT), 7)
    assert budget.extend(early, 10) is None
    assert deny([account], 4, MIDNIGHT).left == 3
    budget.settle(early, 10)
    assert left(account, MIDNIGHT) == 3


def test_a_ledger_is_remembered() -> None:
    account = Account(BOX, Caps(day=10, credit=100))
    account.remember(Window.DAY, index(Window.DAY, NOON), 8)
    account.remember(Window.CREDIT, 0, 95)
    assert left(account) == 2
    assert left(account, NOON + 86400) == 5


def test_credit_knows_no_window() -> None:
    account = Account(BOX, Caps(credit=10))
    budget.settle(take([account], 10, MIDNIGHT - 1), 10)
    assert deny([account], 1, MIDNIGHT + 400 * 86400).kind == "spent"


def test_a_minute_says_when_the_next_one_begins() -> None:
    account = Account(BOX, Caps(minute=10))
    take([account], 10, NOON + 18)
    assert deny([account], 1, NOON + 18).retry_after == 42
    take([account], 10, NOON + 60)


@given(st.integers(0, 4_000_000_000), st.sampled_from([Window.MINUTE, Window.DAY, Window.MONTH]))
def test_windows_are_those_of_the_calendar(now: int, window: Window) -> None:
    number = index(window, now)
    assert begins(window, number) <= now < begins(window, number + 1)
    start = datetime.fromtimestamp(begins(window, number), UTC)
    at = datetime.fromtimestamp(now, UTC)
    fields = {Window.MINUTE: 5, Window.DAY: 3, Window.MONTH: 2}[window]
    assert start.timetuple()[:fields] == at.timetuple()[:fields]
    assert start - timedelta(seconds=start.second) == start


def answer(refusal: Refusal) -> LumenError:
    return refused(refusal)


def test_answers_to_the_client() -> None:
    never = answer(Refusal("unsatisfiable", ROUTE, "request", DOLLAR, 3 * DOLLAR, DOLLAR))
    assert (never.status, never.code) == (400, "budget_unsatisfiable")
    assert "$3.000000" in never.message
    assert "the route 'fast'" in never.message
    assert "3usd or more" in never.message
    spent = answer(Refusal("spent", KEY, "credit", 5 * DOLLAR, DOLLAR, 0))
    assert isinstance(spent, QuotaError)
    assert (spent.status, spent.code, spent.retry_after) == (429, "insufficient_quota", None)
    assert spent.headers == {"x-should-retry": "false"}
    held = answer(Refusal("held", BOX, "day", 5 * DOLLAR, DOLLAR, 0, 1))
    assert isinstance(held, QuotaError)
    assert (held.status, held.code, held.retry_after) == (429, "insufficient_quota", 1)
    # Set aside is not spent, but a client that tries again at once finds the same: it is told when to.
    assert held.headers == {"x-should-retry": "false"}
    minute = answer(Refusal("minute", BOX, "minute", 5 * DOLLAR, DOLLAR, 0, 42))
    assert (minute.status, minute.code, minute.retry_after) == (429, "rate_limit_exceeded", 42)
    assert minute.headers == {}
