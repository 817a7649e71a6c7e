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

from lumen.ledger.journal import SIZE, Journal, left
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


@given(st.binary(max_size=300), st.integers(0, 700))
def test_what_is_broken_is_left_out(tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int) -> None:
    path = tmp_path_factory.mktemp("j") / "l.db"
    journal = Journal(path)
    journal.add([attempt("a")])
    journal.add([attempt("b")])
    journal.close()
    file = files(path)[0]
    whole = file.read_bytes()
    file.write_bytes(whole[:at] + noise + whole[at + len(noise) :])
    found = left(path)
    ends = [len(whole[: whole.rindex(name)]) for name in (b'"a"', b'"b"')]
    assert found[:1] == [attempt("a")] or at < ends[1]
    # Whatever is in it, it is a journal again at the next start.
    journal = Journal(path)
    assert left(path) == []
    journal.add([attempt("c")])
    assert left(path) == [attempt("c")]
    journal.close()


def test_half_a_block_is_none(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    journal = Journal(path)
    journal.add([attempt("a")])
    journal.add([attempt("b")])
    journal.close()
    whole = files(path)[0].read_bytes()
    first = 4 + int.from_bytes(whole[:4], "little")
    # As if it had ended before the last thing that is written, the second block's length.
    files(path)[0].write_bytes(whole[:first] + bytes(4) + whole[first + 4 :])
    assert left(path) == [attempt("a")]


def test_what_does_not_fit_is_not_torn(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    journal = Journal(path)
    rows = [attempt(f"r{number}") for number in range(100)]
    written = 0
    while written < SIZE // 50:
        journal.add(rows)
        written += len(rows)
    found = left(path)
    assert 0 < len(found) < written and len(found) % 100 == 0 and found[-100:] == rows
    journal.clear(journal.turn())
    assert left(path) == []
    assert [file.stat().st_size for file in files(path)] == [SIZE, SIZE]
    journal.close()


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

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    async with opened(path) as (ledger, _):
        ledger.later([attempt("a")])
        await until(lambda: rows(path, "SELECT count(*) FROM attempts") == [(1,)])
