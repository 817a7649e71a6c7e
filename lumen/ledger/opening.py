"""Opening a ledger: its settings, migrations, what a dead gateway left, and the totals for the budgets. Blocks."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

from lumen.core.budget import BOX, Scope, Window, index
from lumen.core.money import MICRO
from lumen.ledger.journal import Record
from lumen.ledger.rows import ESTIMATED, LOST, AttemptRow, HoldRow, Opening
from lumen.ledger.schema import columns, migrate

_SECOND = 1_000_000
_DAY = 86_400

# What was under way when a gateway died is charged what was last known of it and the rest of its hold is let go:
# a stream what had arrived at the last checkpoint (one a second), anything else its input.
_LOST = f"""
    INSERT OR IGNORE INTO attempts (request, seq, key, route, target, provider, model, operation, booked, began_us,
        ended_us, cost, flags, outcome)
    SELECT request, 0, key, route, target, provider, model, operation, booked, booked, booked, known, {ESTIMATED},
        '{LOST}' FROM holds
"""
# A hold that had ended came back with what stood beside the ledger: whose tries are booked has none.
_OVER = "DELETE FROM holds WHERE EXISTS (SELECT 1 FROM attempts WHERE attempts.request = holds.request)"
_NEWEST = 5000
_LENGTHS = """
    SELECT route, output FROM (SELECT route, output, outcome FROM attempts ORDER BY id DESC LIMIT ?)
    WHERE outcome = 'ok' AND output IS NOT NULL
"""

_HOLD = "INSERT OR REPLACE INTO holds VALUES {}"
_KNOW = "UPDATE holds SET known = ? WHERE request = ?"
_DROP = "DELETE FROM holds WHERE request IN (VALUES {})"
# Rows of one statement. Between two statements a thread takes Python's lock anew, and the event loop waits for it.
_AT_ONCE = (64, 8, 1)


def connect(path: Path, busy: float) -> sqlite3.Connection:
    """A connection with the ledger's settings. Any thread may use it, one at a time."""
    connection = sqlite3.connect(
        path, timeout=busy, isolation_level=None, check_same_thread=False, cached_statements=32
    )
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        # The log is copied by a thread of its own, never inside a commit that a request waits for.
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("PRAGMA journal_size_limit = 16777216")
        # In KiB. Rows are appended: the usual two megabytes would fill with pages that nobody reads again.
        connection.execute("PRAGMA cache_size = -512")
    except BaseException:
        connection.close()
        raise
    return connection


def write(
    connection: sqlite3.Connection,
    holds: Iterable[HoldRow] = (),
    known: Iterable[tuple[int, str]] = (),
    rows: Iterable[AttemptRow] = (),
    drops: Iterable[str] = (),
) -> None:
    """Holds, then what is known of them, then attempts that are over, then holds that end; no transaction of its own.

    What is in the file already is the same afterwards. A file of an earlier version gets what it has columns for.
    """
    _many(connection, _HOLD, holds)
    connection.executemany(_KNOW, known)
    tries: list[tuple[object, ...]] = list(rows)
    count = columns(connection) if tries else None
    _many(connection, _attempt(count), tries if count is None else [row[:count] for row in tries])
    _many(connection, _DROP, [(request,) for request in drops])


def _many(connection: sqlite3.Connection, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
    left = list(rows)
    for size in _AT_ONCE:
        while len(left) >= size:
            group, left = left[:size], left[size:]
            connection.execute(_filled(statement, len(group[0]), size), [value for row in group for value in row])


@cache
def _attempt(count: int | None) -> str:
    """The statement for attempts with so many columns, or all."""
    return f"INSERT OR IGNORE INTO attempts ({', '.join(AttemptRow._fields[:count])}) VALUES {{}}"


@cache
def _filled(statement: str, columns: int, rows: int) -> str:
    """The statement with places for so many rows."""
    row = f"({','.join('?' * columns)})"
    return statement.format(",".join([row] * rows))


def prepare(connection: sqlite3.Connection, written: Sequence[Record] = (), live: Sequence[Record] = ()) -> Opening:
    """Bring the file up to date and read what it remembers.

    `written`: what a dead gateway had written down beside it, in order, some of it perhaps in it already.
    `live`: what one has that still finishes its requests; the holds in it stay.

    Raises:
        SchemaError: the file is newer than this program.
        sqlite3.Error: it cannot be written now.
    """
    migrate(connection)
    connection.execute("BEGIN IMMEDIATE")
    try:
        _lay(connection, written)
        connection.execute(_OVER)
        open_still = {record.hold.request for record in live if record.hold is not None}
        _many(connection, _DROP, [(request,) for request in open_still])
        lost = connection.execute(_LOST).rowcount
        connection.execute("DELETE FROM holds")
        _lay(connection, live)
        connection.execute(_OVER)
        held = [HoldRow(*row) for row in connection.execute("SELECT * FROM holds ORDER BY booked")]
        latest = connection.execute("SELECT coalesce(max(booked), 0) FROM attempts").fetchone()[0]
        found = list(_totals(connection, latest // _SECOND))
        lengths = connection.execute(_LENGTHS, (_NEWEST,)).fetchall()
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return Opening(found, max([latest, *[row.booked for row in held]]), lost, lengths[::-1], held)


def lay_in(connection: sqlite3.Connection, written: Sequence[Record]) -> None:
    """Lay what stood beside a ledger into a copy of it that was made a moment later."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        _lay(connection, written)
        connection.execute(_OVER)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _lay(connection: sqlite3.Connection, written: Iterable[Record]) -> None:
    for record in written:
        holds = () if record.hold is None else (record.hold,)
        write(connection, holds, record.known, record.rows, () if record.drop is None else (record.drop,))


def _totals(connection: sqlite3.Connection, now: int) -> Iterator[tuple[Scope, Window, int, int]]:
    """What was spent in the windows around `now` (Unix seconds), the newest time in the ledger.

    Earlier windows are over for good: the ledger's clock never goes back behind it.
    """
    found: dict[tuple[Window, int], dict[Scope, int]] = {}

    def add(window: Window, number: int, key: str, route: str, spent: int) -> None:
        if number != index(window, now):
            return
        scopes = found.setdefault((window, number), {})
        for scope in (Scope("key", key), Scope("route", route), BOX):
            scopes[scope] = scopes.get(scope, 0) + spent

    for day, key, route, whole, rest in connection.execute("SELECT day, key, route, whole, rest FROM spend"):
        for window in (Window.DAY, Window.MONTH, Window.CREDIT):
            add(window, index(window, day * _DAY), key, route, whole * MICRO + rest)
    minute = now // 60
    rows = connection.execute("SELECT key, route, cost FROM attempts WHERE booked >= ?", (minute * 60 * _SECOND,))
    for key, route, cost in rows:
        add(Window.MINUTE, minute, key, route, cost)
    for (window, number), scopes in found.items():
        for scope, spent in scopes.items():
            yield scope, window, number, spent
