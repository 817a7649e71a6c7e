"""What one gateway writes down while another keeps the ledger: whole, in order, once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumen.ledger.copying import belongings, copy
from lumen.ledger.journal import BEGIN, SIZE, Record, handed, left
from lumen.ledger.outbox import Inbox, Outbox, discard
from lumen.ledger.store import Ledger
from tests.ledger.ledgers import attempt, consistent, hold, opened, rows, written

pytestmark = pytest.mark.anyio


def record(number: int) -> Record:
    return Record(rows=[attempt(f"r{number}", cost=number)])


def test_what_is_written_is_read_once_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    outbox, inbox = Outbox(path), Inbox(path)
    assert inbox.read() == []
    assert outbox.add(record(1)) and outbox.add(record(2))
    assert inbox.read() == [record(1), record(2)]
    assert inbox.read() == []
    assert outbox.add(record(3))
    assert inbox.read() == [record(3)]
    # Whoever opens the ledger anew reads all of it.
    assert left(path) == [record(1), record(2), record(3)]
    assert left(path, handed_on=False) == []
    outbox.close()
    assert inbox.read() == []
    inbox.remove()
    assert handed(path) == [] == left(path)


def test_a_full_file_is_followed_by_another(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    outbox, inbox = Outbox(path), Inbox(path)
    many = Record(rows=[attempt(f"r{number}") for number in range(10_000)])
    read = 0
    for number in range(1, 40):
        assert outbox.add(many)
        if number % 7 == 0:
            read += len(inbox.read())
    read += len(inbox.read())
    assert read == 39 == len(left(path))
    assert [one.name for one in handed(path)] == [f"l.db-old{n}" for n in range(len(handed(path)))]
    assert len(handed(path)) > 2
    assert {one.stat().st_size for one in handed(path)} == {SIZE}
    assert set(handed(path)) <= set(belongings(path))
    # What is larger than a file can never be written.
    assert not outbox.add(Record(rows=[attempt("x" * SIZE)]))
    outbox.discard()
    assert handed(path) == []


def test_files_of_an_earlier_gateway_are_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    Outbox(path).add(record(1))
    with pytest.raises(OSError):
        Outbox(path)
    discard(path)
    Outbox(path).close()


@given(st.lists(st.integers(0, 4000), max_size=6))
def test_half_a_record_waits_for_its_other_half(tmp_path_factory: pytest.TempPathFactory, cuts: list[int]) -> None:
    path = tmp_path_factory.mktemp("o") / "l.db"
    outbox = Outbox(path)
    wanted = [record(number) for number in range(5)]
    for one in wanted:
        outbox.add(one)
    outbox.close()
    (file,) = handed(path)
    whole = file.read_bytes()
    end = BEGIN + len(whole[BEGIN:].rstrip(b"\0")) + 4
    inbox, found = Inbox(path), []
    # As if another process were seen in the middle of its writing, at any byte.
    for cut in (*sorted(min(cut, end) for cut in cuts), end):
        with file.open("r+b") as writing:
            writing.write(whole[:cut] + bytes(end - cut))
        found += inbox.read()
        assert found == wanted[: len(found)]
    assert found == wanted
    inbox.close()


async def test_holds_of_a_gateway_that_lives_stay_and_all_others_are_over(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    async with opened(path) as (first, _):
        first.hold(hold("dead", amount=100, known=7))
        first.hold(hold("live", amount=100, known=1))
        first.hold(hold("ended", amount=100, known=1))
        await written(first, "SELECT 1")
    outbox = Outbox(path)
    for one in (hold("live", amount=150, known=3), hold("ended", amount=100, known=2)):
        outbox.add(Record(hold=one))
    outbox.add(Record(rows=[attempt("ended", cost=20)], drop="ended"))
    ledger = Ledger(path)
    found = ledger.open(inbox := Inbox(path))
    ledger.start()
    assert found.held == [hold("live", amount=150, known=3)] and found.lost == 1
    assert rows(path, "SELECT request, cost, outcome FROM attempts ORDER BY 1") == [
        ("dead", 7, "lost"), ("ended", 20, "ok")
    ]  # fmt: skip
    # What comes later is committed by the one that has the ledger.
    outbox.add(Record(rows=[attempt("live", cost=9), attempt("live", 2, cost=1)], drop="live"))
    for more in inbox.read():
        ledger.relay(more)
    over = asyncio.Event()
    ledger.after(over.set)
    async with asyncio.timeout(100):
        await over.wait()
    assert rows(path, "SELECT count(*) FROM holds") == [(0,)]
    ledger.flush(last=True)
    ledger.close()
    # Killed before the files were removed: the next one takes them once more, which changes nothing.
    before = rows(path, "SELECT * FROM attempts ORDER BY id")
    async with opened(path) as (_, again):
        assert again.lost == 0 and again.held == []
    assert rows(path, "SELECT * FROM attempts ORDER BY id") == before and handed(path) == []
    consistent(path)


async def test_a_copy_has_what_was_handed_on(tmp_path: Path) -> None:
    path, into = tmp_path / "l.db", tmp_path / "copy.db"
    async with opened(path):
        pass
    outbox = Outbox(path)
    outbox.add(Record(hold=hold("a")))
    outbox.add(Record(rows=[attempt("a", cost=5)], drop="a"))
    copy(path, into)
    assert rows(into, "SELECT request, cost FROM attempts") == [("a", 5)]
    assert rows(into, "SELECT count(*) FROM holds") == [(0,)]
    outbox.discard()
