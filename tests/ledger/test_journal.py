"""What is on its way: written down at once, committed a moment later, never twice."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumen.ledger.journal import SIZE, Journal, Record, left
from lumen.ledger.report import reading
from lumen.ledger.store import Ledger, LedgerError
from tests.ledger.ledgers import attempt, committed, consistent, hold, opened, rows

pytestmark = pytest.mark.anyio
A, B, C = (Record(rows=[attempt(name)]) for name in "abc")


def files(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}-new*"))


async def until(condition: object) -> None:
    async with asyncio.timeout(100):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.005)


def test_what_is_written_is_read_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    journal = Journal(path)
    first = Record(hold=hold("a", known=10**18))
    second = Record(rows=[attempt("b\n\u2028\u00e9", input=None, fidelity="prefill"), attempt("c", 2)], drop="a")
    third = Record(known=[(7, "a"), (10**18, "b")])
    assert journal.add(first)
    assert left(path) == [first]
    which = journal.turn()
    assert journal.add(second)
    assert left(path) == [first, second]
    journal.clear(which)
    assert left(path) == [second]
    # Back in the first file, which is the younger one now.
    assert journal.turn() == 1 - which
    assert journal.add(third)
    assert left(path) == [second, third]
    journal.close()
    # Closed, it takes nothing and breaks nothing.
    assert not journal.add(first)
    journal.clear(which)
    assert len(left(path)) == 2
    assert {stat.S_IMODE(file.stat().st_mode) for file in files(path)} == {0o600}


@given(st.binary(max_size=300), st.integers(0, 700))
def test_what_is_broken_is_left_out(tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int) -> None:
    path = tmp_path_factory.mktemp("j") / "l.db"
    journal = Journal(path)
    journal.add(A)
    journal.add(B)
    journal.close()
    file = files(path)[0]
    whole = file.read_bytes()
    file.write_bytes(whole[:at] + noise + whole[at + len(noise) :])
    # Whatever is in it, only what was written comes out of it.
    assert left(path) in ([], [A], [A, B])
    # And it is a journal again at the next start.
    journal = Journal(path)
    assert left(path) == []
    journal.add(C)
    assert left(path) == [C]
    journal.close()


def test_half_a_block_is_none(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    journal = Journal(path)
    journal.add(A)
    journal.add(B)
    journal.close()
    whole = files(path)[0].read_bytes()
    first = 16 + int.from_bytes(whole[8:12], "little")
    # As if it had ended before the last thing that is written, the second block's length.
    files(path)[0].write_bytes(whole[:first] + bytes(4) + whole[first + 4 :])
    assert left(path) == [A]


def test_what_does_not_fit_is_refused_and_not_torn(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    journal = Journal(path)
    many = Record(rows=[attempt(f"r{number}") for number in range(100)])
    written, roomy = 0, []
    while journal.add(many):
        written += 1
        roomy.append(journal.roomy)
    assert left(path) == [many] * written
    assert roomy[0] and not roomy[-1] and written > 10
    journal.clear(journal.turn())
    assert left(path) == []
    assert journal.roomy
    assert [file.stat().st_size for file in files(path)] == [SIZE, SIZE]
    journal.close()


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        Journal(tmp_path / "nowhere" / "l.db")
    assert left(tmp_path / "nowhere" / "l.db") == []


async def test_committed_rows_leave_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    async with opened(path) as (ledger, _):
        for number in range(500):
            ledger.settle([attempt(f"r{number}")], None)
            if number % 50 == 0:
                await asyncio.sleep(0.01)
        assert (
            len(
                {row.request for record in left(path) for row in record.rows}
                | {name for (name,) in rows(path, "SELECT request FROM attempts")}
            )
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
    ledger.settle([attempt("a")], None)
    ledger.flush()
    # While that cannot be committed, others come.
    ledger.settle([attempt("b"), attempt("b", 2)], None)
    await until(lambda: not ledger.healthy)
    ledger.flush()
    ledger.settle([attempt("c")], None)
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


async def test_without_room_for_the_journal_nothing_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "l.db"

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    ledger = Ledger(path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(LedgerError):
            ledger.open()
    assert ledger.trouble == "No space left on device"
    # What is free goes on meanwhile, and is written when there is room.
    ledger.settle([attempt("a")], None)
    with pytest.raises(LedgerError):
        ledger.hold(hold("b"))
    ledger.open()
    ledger.start()
    await committed(ledger)
    assert rows(path, "SELECT request FROM attempts") == [("a",)]
    ledger.close()
