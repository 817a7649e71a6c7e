from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from pathlib import Path

import pytest

from lumen.core.budget import BOX, Scope, Window, index
from lumen.ledger.rows import LOST
from lumen.ledger.store import Ledger, LedgerError
from tests.ledger.ledgers import NOON, attempt, consistent, hold, opened, rows

pytestmark = pytest.mark.anyio
DAY = 86_400 * 1_000_000


async def settled(ledger: Ledger, *attempts: object, held: str | None = None) -> None:
    future = ledger.settle(attempts, held)  # type: ignore[arg-type]
    assert future is not None
    await future


async def until(condition: object, seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.01)


async def test_a_hold_is_there_until_it_is_settled(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "l.db"
    async with opened(path) as (ledger, _):
        await ledger.hold(hold("a", amount=5))
        assert rows(path, "SELECT request, amount FROM holds") == [("a", 5)]
        await ledger.hold(hold("a", amount=9))
        assert rows(path, "SELECT request, amount FROM holds") == [("a", 9)]
        await settled(ledger, attempt("a", 1, cost=3), attempt("a", 2, cost=4), held="a")
        assert rows(path, "SELECT count(*) FROM holds") == [(0,)]
        assert rows(path, "SELECT seq, cost FROM attempts ORDER BY seq") == [(1, 3), (2, 4)]
    consistent(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ledger.waiting == 0


async def test_the_same_attempt_is_never_booked_twice(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    async with opened(path) as (ledger, _):
        await settled(ledger, attempt("a", cost=3))
        await settled(ledger, attempt("a", cost=3), attempt("b", cost=1))
    assert rows(path, "SELECT sum(cost), count(*) FROM attempts") == [(4, 2)]
    consistent(path)


async def test_totals_of_a_reopened_ledger_are_those_of_the_windows_of_its_last_moment(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    async with opened(path) as (ledger, found):
        assert (found.totals, found.latest, found.lost) == ([], 0, 0)
        await settled(ledger, attempt("old", cost=1_000_000_000_001, booked=NOON - 40 * DAY))
        await settled(ledger, attempt("day", cost=10, booked=NOON - DAY))
        await settled(ledger, attempt("now", cost=100, booked=NOON - 1), attempt("now", 2, cost=1000, booked=NOON))
        await settled(ledger, attempt("else", cost=5, booked=NOON, key="", route="slow"))
    async with opened(path) as (_, found):
        spent = {(scope, window): amount for scope, window, _, amount in found.totals}
        numbers = {window: number for _, window, number, _ in found.totals}
    assert found.latest == NOON
    assert numbers == {window: index(window, NOON // 1_000_000) for window in Window}
    key, route = Scope("key", "k"), Scope("route", "fast")
    before = NOON // 60_000_000 == (NOON - 1) // 60_000_000
    assert spent[BOX, Window.CREDIT] == 1_000_000_000_001 + 10 + 1100 + 5
    assert spent[key, Window.CREDIT] == spent[route, Window.CREDIT] == 1_000_000_000_001 + 10 + 1100
    assert spent[key, Window.MONTH] == 1110
    assert spent[key, Window.DAY] == 1100
    assert spent[key, Window.MINUTE] == (1100 if before else 1000)
    assert spent[Scope("route", "slow"), Window.DAY] == 5


async def test_what_a_dead_gateway_held_is_charged_what_was_known_and_let_go(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    async with opened(path) as (ledger, _):
        await ledger.hold(hold("a", amount=100, known=3))
        await ledger.hold(hold("b", amount=100, known=4))
        ledger.know([(17, "b"), (99, "gone")])
    for lost in (2, 0):
        async with opened(path) as (_, found):
            assert found.lost == lost
            assert {amount for scope, window, _, amount in found.totals if scope == BOX} == {20}
    assert rows(path, "SELECT request, seq, cost, flags, outcome FROM attempts ORDER BY 1") == [
        ("a", 0, 3, 1, LOST), ("b", 0, 17, 1, LOST),
    ]  # fmt: skip
    assert rows(path, "SELECT count(*) FROM holds") == [(0,)]
    consistent(path)


async def test_commits_are_shared(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    async with opened(path) as (ledger, _):

        async def one(number: int) -> None:
            await ledger.hold(hold(f"r{number}"))
            await settled(ledger, attempt(f"r{number}", cost=number), held=f"r{number}")

        async with asyncio.TaskGroup() as group:
            for number in range(3000):
                group.create_task(one(number))
    assert rows(path, "SELECT count(*), sum(cost) FROM attempts") == [(3000, 3000 * 2999 // 2)]
    consistent(path)


async def test_a_cancelled_wait_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    async with opened(path) as (ledger, _):

        async def one() -> None:
            await settled(ledger, attempt("a", cost=3))

        task = asyncio.create_task(one())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert rows(path, "SELECT cost FROM attempts") == [(3,)]


class Lock:
    """Another program that holds the write lock."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("BEGIN IMMEDIATE")

    def release(self) -> None:
        self._connection.execute("ROLLBACK")
        self._connection.close()


async def test_while_another_program_holds_the_lock_holds_are_refused_and_settlements_wait(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    told: list[str | None] = []
    async with opened(path, busy=0.05, told=told.append) as (ledger, _):
        await ledger.hold(hold("running"))
        lock = Lock(path)
        with pytest.raises(LedgerError) as refused:
            await ledger.hold(hold("new"))
        assert (refused.value.status, refused.value.code, refused.value.retry_after) == (503, "ledger_unavailable", 5)
        assert not ledger.healthy
        with pytest.raises(LedgerError):
            await ledger.hold(hold("another"))
        future = ledger.settle([attempt("running", cost=7)], "running")
        assert future is not None
        assert ledger.waiting == 1
        lock.release()
        await future
        assert ledger.healthy
        await ledger.hold(hold("after"))
        assert told == ["another program holds its lock", None]
        assert rows(path, "SELECT request FROM holds") == [("after",)]
        assert rows(path, "SELECT request, cost FROM attempts") == [("running", 7)]
    consistent(path)


def limit_pages(ledger: Ledger, pages: int) -> None:
    """As if the disk had room for only so many pages. The connection is used by its own thread alone otherwise."""
    assert ledger._connection is not None
    ledger._connection.execute(f"PRAGMA max_page_count = {pages}")


async def test_a_full_disk_refuses_what_is_new_and_keeps_what_runs(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    told: list[str | None] = []
    async with opened(path, told=told.append) as (ledger, _):
        ((used,),) = rows(path, "PRAGMA page_count")
        await ledger.hold(hold("running"))
        limit_pages(ledger, used)
        futures = []
        with pytest.raises(LedgerError):
            for number in range(10_000):
                future = ledger.settle([attempt(f"early{number}", cost=1)], None)
                futures.append(future)
                await ledger.hold(hold(f"new{number}"))
        await until(lambda: not ledger.healthy)
        late = ledger.settle([attempt("running", cost=7)], "running")
        free = ledger.settle([attempt("free")], None)
        assert not ledger.healthy
        limit_pages(ledger, 1_000_000)
        for future in (*futures, late, free):
            assert future is not None
            await future
        assert ledger.healthy
        await ledger.hold(hold("after"))
    assert told == ["the disk is full", None]
    assert rows(path, "SELECT sum(cost), count(*) FROM attempts") == [(7 + len(futures), 2 + len(futures))]
    assert rows(path, "SELECT count(*) FROM holds WHERE request = 'running'") == [(0,)]
    consistent(path)


async def test_it_recovers_without_anything_to_write(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    async with opened(path, busy=0.02) as (ledger, _):
        lock = Lock(path)
        with pytest.raises(LedgerError):
            await ledger.hold(hold("new"))
        lock.release()
        await until(lambda: ledger.healthy)


async def test_settlements_of_free_requests_are_bounded_while_nothing_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    async with opened(path, busy=0.02, most_waiting=3) as (ledger, _):
        lock = Lock(path)
        kept = [ledger.settle([attempt(f"free{number}")], None) for number in range(5)]
        paid = ledger.settle([attempt("paid", cost=1)], "paid")
        assert [future is not None for future in kept] == [True] * 3 + [False] * 2
        assert ledger.dropped == 2
        lock.release()
        assert paid is not None
        await paid
    assert rows(path, "SELECT count(*) FROM attempts") == [(4,)]


async def test_closing_waits_for_what_is_queued(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    async with opened(path, busy=0.05) as (ledger, _):
        lock = Lock(path)
        ledger.settle([attempt("late", cost=5)], None)
        await until(lambda: ledger.trouble)
        closing = asyncio.create_task(asyncio.to_thread(ledger.close))
        await asyncio.sleep(0)
        lock.release()
        await closing
        assert rows(path, "SELECT cost FROM attempts") == [(5,)]


async def test_what_cannot_be_opened_says_why(tmp_path: Path) -> None:
    (tmp_path / "l.db").write_bytes(b"not a database, but long enough to be looked at" * 40)
    ledger = Ledger(tmp_path / "l.db")
    with pytest.raises(LedgerError, match="no ledger"):
        ledger.open()
    assert ledger.trouble == "the file is no ledger"
    with pytest.raises(LedgerError, match="cannot be opened"):
        Ledger(tmp_path / "l.db" / "below").open()
    if os.getuid():
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(LedgerError):
            Ledger(tmp_path / "closed" / "l.db").open()


async def test_the_log_stays_short(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    async with opened(path) as (ledger, _):
        for number in range(5000):
            await settled(ledger, attempt(f"r{number}", cost=1))
        assert path.with_name("l.db-wal").stat().st_size < 128 * 1024 * 1024
    assert not path.with_name("l.db-wal").exists()
    consistent(path)
