"""Rows of free requests: written down at once, committed a moment later, never twice."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumen.ledger.journal import Journal, left
from lumen.ledger.report import reading
from lumen.ledger.store import Ledger
from tests.ledger.ledgers import attempt, consistent, opened, rows

pytestmark = pytest.mark.anyio


def files(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}-free*"))


async def until(condition: object) -> None:
    async with asyncio.timeout(10):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.005)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    journal = Journal(path)
    first, second = attempt("a", input=None, fidelity="prefill"), attempt("b\n\u2028\u00e9")
    third = attempt("c", 2, cost=10**18)
    journal.add([first])
    assert left(path) == [first]
    which = journal.turn()
    journal.add([second, third])
    assert left(path) == [first, second, third]
    journal.clear(which)
    assert left(path) == [second, third]
    journal.close()
    # Closed, it takes nothing and breaks nothing.
    journal.add([first])
    journal.clear(1 - which)
    assert len(left(path)) == 2
    assert {stat.S_IMODE(file.stat().st_mode) for file in files(path)} == {0o600}


@given(st.binary(max_size=300), st.integers(0, 400))
def test_what_is_broken_is_left_out_and_what_follows_is_not(tmp_path_factory: pytest.TempPathFactory, noise: bytes,
                                                            cut: int) -> None:  # fmt: skip
    path = tmp_path_factory.mktemp("j") / "l.db"
    journal = Journal(path)
    journal.add([attempt("a")])
    file = files(path)[0]
    file.write_bytes(file.read_bytes()[:cut] + noise)
    journal.add([attempt("b")])
    journal.close()
    assert left(path)[-1] == attempt("b")
    assert len(left(path)) <= 2 or noise


def test_a_folder_that_cannot_be_written_costs_only_the_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "nowhere" / "l.db")
    journal.add([attempt("a")])
    journal.clear(journal.turn())
    journal.close()
    assert left(tmp_path / "nowhere" / "l.db") == []


async def test_committed_rows_leave_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    async with opened(path) as (ledger, _):
        for number in range(500):
            ledger.later([attempt(f"r{number}")])
            if number % 50 == 0:
                await asyncio.sleep(0.01)
        assert (
            len({row.request for row in left(path)} | {name for (name,) in rows(path, "SELECT request FROM attempts")})
            == 500
        )
        await until(lambda: rows(path, "SELECT count(*) FROM attempts") == [(500,)] and not left(path))
        assert [file.stat().st_size for file in files(path)] == [0, 0]
    consistent(path)


async def test_rows_that_could_not_be_committed_are_taken_over_once_and_seen_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    ledger = Ledger(path, busy=0.05)
    ledger.open()
    ledger.start()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    ledger.later([attempt("a")])
    ledger.flush()
    # While that cannot be committed, others come.
    ledger.later([attempt("b"), attempt("b", 2)])
    await until(lambda: not ledger.healthy)
    ledger.flush()
    ledger.later([attempt("c")])
    with reading(path) as reader:
        assert (reader.total().requests, reader.total().attempts) == (3, 4)
    # As after kill -9: nothing of this process is ended in good order.
    before = {file: file.read_bytes() for file in files(path)}
    ledger.close(within=0.1)
    other.execute("ROLLBACK")
    other.close()
    for file, data in before.items():
        file.write_bytes(data)
    for _ in range(2):
        async with opened(path) as (_, _found):
            assert rows(path, "SELECT request, seq FROM attempts ORDER BY 1, 2") == [
                ("a", 1),
                ("b", 1),
                ("b", 2),
                ("c", 1),
            ]
        assert not left(path)
        files(path)[0].write_bytes(before[files(path)[0]])
    consistent(path)


async def test_a_full_disk_costs_no_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "l.db"

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    async with opened(path) as (ledger, _):
        monkeypatch.setattr(os, "write", full)
        ledger.later([attempt("a")])
        monkeypatch.undo()
        await until(lambda: rows(path, "SELECT count(*) FROM attempts") == [(1,)])
