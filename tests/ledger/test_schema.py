from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from lumen.ledger import opening, report
from lumen.ledger.journal import Journal, Record
from lumen.ledger.schema import STEPS, SchemaError, migrate, version
from tests.ledger.ledgers import NOON, attempt, committed, opened, rows

pytestmark = pytest.mark.anyio


def plain(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None)


async def test_a_new_file_is_of_the_newest_version(tmp_path: Path) -> None:
    async with opened(tmp_path / "l.db"):
        assert rows(tmp_path / "l.db", "PRAGMA user_version") == [(len(STEPS),)]


async def test_a_file_of_version_1_is_brought_up_to_date_with_all_that_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    old = plain(path)
    assert migrate(old, STEPS[:1]) == 0
    old.execute("INSERT INTO holds VALUES ('r', 'k', 'fast', 'p/m', 'p', 'm', 'chat', ?, 9, 7)", (NOON,))
    old.close()
    newer = (*STEPS, ["ALTER TABLE attempts ADD COLUMN region TEXT", "UPDATE holds SET known = known + 1"])
    connection = plain(path)
    assert migrate(connection, newer) == 1
    assert version(connection) == len(newer)
    assert connection.execute("SELECT known FROM holds").fetchall() == [(8,)]
    assert migrate(connection, newer) == len(newer)
    assert connection.execute("SELECT known FROM holds").fetchall() == [(8,)]
    connection.close()


@pytest.mark.parametrize("released", range(1, len(STEPS)))
async def test_a_file_of_any_earlier_version_is_brought_up_to_date(tmp_path: Path, released: int) -> None:
    """With the rows that it has, the sums of old ones, and what its program had written down beside it."""
    path = tmp_path / "l.db"
    old = plain(path)
    migrate(old, STEPS[:released])
    names = [name for _, name, *_ in old.execute("PRAGMA table_info(attempts)") if name != "id"]
    values = attempt("before", cost=5, wake_us=7, queue_us=8, prefill_us=9)._asdict()
    old.execute(
        f"INSERT INTO attempts ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})",
        [values[name] for name in names],
    )
    if released > 1:
        old.execute(
            "INSERT INTO retired (day, key, route, target, provider, model, outcome, requests, target_requests,"
            " provider_requests, outcome_requests, attempts, input, output, cached, cache_write, reasoning, busy_us,"
            " whole, rest, estimated, unpriced) VALUES (1, 'k', 'r', 't', 'p', 'm', 'ok', 2, 2, 2, 2, 2, 6, 8, 0, 0, 0,"
            " 9, 0, 7, 0, 0)"
        )
    old.close()
    journal = Journal(path)
    assert journal.add(Record(rows=[tuple(attempt("beside", wake_us=7, queue_us=8, prefill_us=9))[: len(names)]]))  # type: ignore[list-item]
    journal.close()
    async with opened(path) as (ledger, _):
        ledger.settle([attempt("after", wake_us=1, queue_us=2, prefill_us=3, score=0.98, bar=0.97)], None)
        await committed(ledger)
    parts = (7, 8, 9) if released >= 5 else (None, None, None)
    assert rows(path, "SELECT request, wake_us, queue_us, prefill_us, score, bar FROM attempts ORDER BY id") == [
        ("before", *parts, None, None), ("beside", *parts, None, None), ("after", 1, 2, 3, 0.98, 0.97)
    ]  # fmt: skip
    with report.reading(path) as reader:
        total = reader.total()
    assert (total.attempts, total.wake_us, total.queue_us, total.prefill_us) == (
        3 + 2 * (released > 1),
        *((15, 18, 21) if released >= 5 else (1, 2, 3)),
    )


def test_a_step_that_fails_leaves_the_version_before_it(tmp_path: Path) -> None:
    connection = plain(tmp_path / "l.db")
    broken = (*STEPS, ["CREATE TABLE more (x)", "CREATE TABLE attempts (x)"])
    with pytest.raises(sqlite3.OperationalError, match="already exists"):
        migrate(connection, broken)
    assert version(connection) == len(STEPS)
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert names == {"attempts", "spend", "holds", "meta", "retired", "labels", "pairs", "anchors", "responses"}
    connection.close()


async def test_a_file_of_a_newer_version_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    connection = plain(path)
    connection.execute(f"PRAGMA user_version = {len(STEPS) + 1}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(SchemaError, match="newer"):
        async with opened(path):
            pass
    assert path.read_bytes()[100:] == before[100:]


async def test_totals_are_exact_beyond_what_one_column_holds(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    nine_million = 9_000_000 * 10**12
    async with opened(path) as (ledger, _):
        for i in range(5):
            ledger.settle([attempt(f"r{i}", cost=nine_million - i)], None)
            await committed(ledger)
    connection = opening.connect(path, 1.0)
    found = opening.prepare(connection)
    connection.close()
    assert {spent for *_, spent in found.totals} == {5 * nine_million - 10}


@pytest.mark.parametrize("wrong", [-1, 1.5, "1"])
def test_a_cost_is_a_whole_number(tmp_path: Path, wrong: object) -> None:
    connection = plain(tmp_path / "l.db")
    migrate(connection)
    values = attempt()._replace(cost=wrong)  # type: ignore[arg-type]
    marks = ",".join("?" * len(values))
    names = ",".join(values._fields)
    if wrong == "1":
        # Text that is a whole number is stored as one.
        connection.execute(f"INSERT INTO attempts ({names}) VALUES ({marks})", values)
        assert connection.execute("SELECT typeof(cost) FROM attempts").fetchall() == [("integer",)]
    else:
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute(f"INSERT INTO attempts ({names}) VALUES ({marks})", values)
    connection.close()
