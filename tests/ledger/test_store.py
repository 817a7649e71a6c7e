from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from pathlib import Path

import pytest

from lumen.core.budget import BOX, Scope, Window, index
from lumen.ledger.journal import left
from lumen.ledger.rows import LOST, AttemptRow
from lumen.ledger.store import Ledger, LedgerError
from tests.ledger.ledgers import NOON, attempt, committed, consistent, hold, opened, rows

pytestmark = pytest.mark.anyio
DAY = 86_400 * 1_000_000


async def settled(ledger: Ledger, *attempts: AttemptRow, held: str | None = None) -> None:
    ledger.settle(list(attempts), held)
    await committed(ledger)


async def until(condition: object, seconds: float = 100.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.01)


async def test_a_hold_is_there_until_it_is_settled(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "l.db"
    async with opened(path) as (ledger, _):
        for amount in (5, 9):
            ledger.hold(hold("a", amount=amount))
            await committed(ledger)
            assert rows(path, "SELECT request, amount FROM holds") == [("a", amount)]
        await settled(ledger, attempt("a", 1, cost=3), attempt("a", 2, cost=4), held="a")
        assert rows(path, "SELECT count(*) FROM holds") == [(0,)]
        assert rows(path, "SELECT seq, cost FROM attempts ORDER BY seq") == [(1, 3), (2, 4)]
    consistent(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ledger.waiting == 0


async def test_a_hold_that_ends_before_the_commit_never_reaches_the_file(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    async with opened(path) as (ledger, _):
        told: list[str] = []
        assert ledger._connection is not None
        ledger._connection.set_trace_callback(told.append)
        ledger.hold(hold("a", amount=5))
        ledger.know([(3, "a")])
        await settled(ledger, attempt("a", cost=3), held="a")
        assert told and not [line for line in told if "holds" in line]
    assert rows(path, "SELECT cost FROM attempts") == [(3,)]
    consistent(path)


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


@pytest.mark.parametrize("stored", [True, False])
async def test_what_a_dead_gateway_held_is_charged_what_was_known_and_let_go(tmp_path: Path, stored: bool) -> None:
    path = tmp_path / "l.db"
    async with opened(path) as (ledger, _):
        ledger.hold(hold("a", amount=100, known=3))
        ledger.hold(hold("b", amount=100, known=4))
        if stored:
            await committed(ledger)
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
            ledger.hold(hold(f"r{number}"))
            await asyncio.sleep(0)
            ledger.settle([attempt(f"r{number}", cost=number)], f"r{number}")

        async with asyncio.TaskGroup() as group:
            for number in range(3000):
                group.create_task(one(number))
        await committed(ledger)
    assert rows(path, "SELECT count(*), sum(cost) FROM attempts") == [(3000, 3000 * 2999 // 2)]
    consistent(path)


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
        ledger.hold(hold("running"))
        await committed(ledger)
        lock = Lock(path)
        ledger.hold(hold("early"))
        await until(lambda: not ledger.healthy)
        with pytest.raises(LedgerError) as refused:
            ledger.hold(hold("new"))
        assert (refused.value.status, refused.value.code, refused.value.retry_after) == (503, "ledger_unavailable", 5)
        ledger.settle([attempt("running", cost=7)], "running")
        assert ledger.waiting == 1
        lock.release()
        await committed(ledger)
        assert ledger.healthy
        assert ledger.waiting == 0
        ledger.hold(hold("after"))
        await committed(ledger)
        assert told == ["another program holds its lock", None]
        assert rows(path, "SELECT request FROM holds") == [("after",), ("early",)]
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
        ledger.hold(hold("running"))
        await committed(ledger)
        limit_pages(ledger, used)
        early = 0
        with pytest.raises(LedgerError):
            for early in range(1, 10_000):
                ledger.settle([attempt(f"early{early}", cost=1)], None)
                ledger.hold(hold(f"new{early}"))
                await asyncio.sleep(0.001)
        assert not ledger.healthy
        ledger.settle([attempt("running", cost=7)], "running")
        ledger.settle([attempt("free")], None)
        limit_pages(ledger, 1_000_000)
        await committed(ledger)
        assert ledger.healthy
        ledger.hold(hold("after"))
    assert told == ["the disk is full", None]
    assert rows(path, "SELECT sum(cost), count(*) FROM attempts") == [(7 + early, 2 + early)]
    assert rows(path, "SELECT count(*) FROM holds WHERE request = 'running'") == [(0,)]
    consistent(path)


async def test_holds_are_refused_before_the_journal_is_full(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    async with opened(path, busy=20) as (ledger, _):
        lock = Lock(path)
        held = 0
        with pytest.raises(LedgerError):
            for held in range(100_000):
                ledger.hold(hold(f"r{held}"))
        # What was admitted finds room for its end.
        for number in range(held):
            ledger.settle([attempt(f"r{number}", cost=1)], f"r{number}")
        ended = {record.drop for record in left(path) if record.rows}
        assert len(ended) > 1000
        lock.release()
    assert rows(path, "SELECT count(*), sum(cost) FROM attempts") == [(held, held)]
    assert rows(path, "SELECT count(*) FROM holds") == [(0,)]


async def test_a_disk_that_does_not_answer_is_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lumen.ledger.store._STUCK", -19.9)
    path = tmp_path / "l.db"
    async with opened(path, busy=20) as (ledger, _):
        lock = Lock(path)
        ledger.settle([attempt("a")], None)
        ledger.flush()
        ledger.settle([attempt("b")], None)
        await until(lambda: ledger.trouble == "the disk does not answer")
        lock.release()
        await until(lambda: ledger.healthy)
    assert rows(path, "SELECT count(*) FROM attempts") == [(2,)]


async def test_settlements_without_a_hold_are_bounded_while_nothing_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    async with opened(path, busy=0.02, most_waiting=3) as (ledger, _):
        lock = Lock(path)
        ledger.hold(hold("paid"))
        for number in range(5):
            ledger.settle([attempt(f"free{number}")], None)
        ledger.settle([attempt("paid", cost=1)], "paid")
        assert ledger.dropped == 2
        lock.release()
        await committed(ledger)
    assert rows(path, "SELECT count(*) FROM attempts") == [(4,)]


async def test_closing_waits_for_what_is_queued(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    async with opened(path, busy=0.05) as (ledger, _):
        lock = Lock(path)
        ledger.settle([attempt("late", cost=5)], None)
        await until(lambda: ledger.trouble)
        ledger.settle([attempt("last", cost=6)], None)
        ledger.flush(last=True)
        closing = asyncio.create_task(asyncio.to_thread(ledger.close))
        await asyncio.sleep(0)
        lock.release()
        await closing
        assert rows(path, "SELECT cost FROM attempts") == [(5,), (6,)]


async def test_a_ledger_that_cannot_be_written_for_long_is_taken_over_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    ledger = Ledger(path, busy=0.05)
    ledger.open()
    ledger.start()
    ledger.hold(hold("both"))
    await committed(ledger)
    lock = Lock(path)
    ledger.hold(hold("first"))
    ledger.flush()
    # In the other file: the end of what the first one began.
    ledger.settle([attempt("first", cost=2)], "first")
    ledger.settle([attempt("both", cost=3)], "both")
    await until(lambda: ledger.trouble)
    await asyncio.to_thread(ledger.close, 0.1)
    lock.release()
    for _ in range(2):
        async with opened(path) as (_, found):
            assert found.lost == 0
        assert rows(path, "SELECT request, cost FROM attempts ORDER BY 1") == [("both", 3), ("first", 2)]
        assert rows(path, "SELECT count(*) FROM holds") == [(0,)]
    consistent(path)


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
            ledger.settle([attempt(f"r{number}", cost=1)], None)
            if number % 10 == 0:
                await committed(ledger)
        assert path.with_name("l.db-wal").stat().st_size < 128 * 1024 * 1024
    assert not path.with_name("l.db-wal").exists()
    consistent(path)
