"""The tables and how they came to be: version N of a file is what the first N steps make of an empty one.

A step is never changed once released; a new one is added below. Each runs in its own transaction together with the
version it leads to, so a crash in the middle leaves the file at the version before.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from lumen.core.errors import ConfigError
from lumen.ledger import retire

_DAY = 86_400_000_000

# `spend` keeps each day's total by key and route, so that a budget of any length is known at the start without
# reading every attempt. A trigger writes it: no row can be in one table and not in the other. A total is kept as
# whole micro-dollars and a rest, because a sum of pico-dollars would overflow at nine million dollars.
_FIRST = (
    """CREATE TABLE attempts (
        id INTEGER PRIMARY KEY,
        request TEXT NOT NULL,
        seq INTEGER NOT NULL,
        key TEXT NOT NULL,
        route TEXT NOT NULL,
        target TEXT NOT NULL,
        provider TEXT NOT NULL,
        model TEXT NOT NULL,
        operation TEXT NOT NULL,
        booked INTEGER NOT NULL,
        began_us INTEGER NOT NULL,
        first_us INTEGER,
        ended_us INTEGER NOT NULL,
        input INTEGER,
        output INTEGER,
        cached INTEGER,
        cache_write INTEGER,
        reasoning INTEGER,
        cost INTEGER NOT NULL CHECK (typeof(cost) = 'integer' AND cost >= 0),
        flags INTEGER NOT NULL,
        outcome TEXT NOT NULL,
        resumed_at INTEGER,
        fidelity TEXT,
        UNIQUE (request, seq)
    )""",
    "CREATE INDEX attempts_booked ON attempts (booked)",
    """CREATE TABLE spend (
        day INTEGER NOT NULL,
        key TEXT NOT NULL,
        route TEXT NOT NULL,
        whole INTEGER NOT NULL,
        rest INTEGER NOT NULL,
        PRIMARY KEY (day, key, route)
    ) WITHOUT ROWID""",
    f"""CREATE TRIGGER attempts_spend AFTER INSERT ON attempts BEGIN
        INSERT INTO spend VALUES (NEW.booked / {_DAY}, NEW.key, NEW.route, NEW.cost / 1000000, NEW.cost % 1000000)
        ON CONFLICT DO UPDATE SET
            whole = whole + excluded.whole + (rest + excluded.rest) / 1000000,
            rest = (rest + excluded.rest) % 1000000;
    END""",
    """CREATE TABLE holds (
        request TEXT PRIMARY KEY,
        key TEXT NOT NULL,
        route TEXT NOT NULL,
        target TEXT NOT NULL,
        provider TEXT NOT NULL,
        model TEXT NOT NULL,
        operation TEXT NOT NULL,
        booked INTEGER NOT NULL,
        amount INTEGER NOT NULL,
        known INTEGER NOT NULL
    ) WITHOUT ROWID""",
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
)

# Whether answers were good, see `labels.py`.
_LABELS = (
    """CREATE TABLE labels (
        id INTEGER PRIMARY KEY,
        request TEXT NOT NULL,
        source TEXT NOT NULL,
        route TEXT NOT NULL,
        key TEXT NOT NULL,
        at INTEGER NOT NULL,
        ok TEXT NOT NULL,
        tokens TEXT NOT NULL,
        propensity REAL NOT NULL CHECK (propensity > 0 AND propensity <= 1),
        form TEXT NOT NULL,
        ask BLOB NOT NULL,
        versions TEXT NOT NULL,
        comment TEXT NOT NULL,
        UNIQUE (request, source)
    )""",
    "CREATE INDEX labels_route ON labels (route, id)",
    """CREATE TABLE pairs (
        id INTEGER PRIMARY KEY,
        request TEXT NOT NULL UNIQUE,
        run TEXT NOT NULL,
        at INTEGER NOT NULL,
        facts BLOB NOT NULL,
        sample BLOB
    )""",
    "CREATE INDEX pairs_run ON pairs (run, id)",
    """CREATE TABLE anchors (
        route TEXT NOT NULL,
        prompt TEXT NOT NULL,
        first TEXT NOT NULL,
        second TEXT NOT NULL,
        verdict TEXT NOT NULL CHECK (verdict IN ('first', 'second', 'tie')),
        at INTEGER NOT NULL,
        PRIMARY KEY (route, prompt, first, second)
    ) WITHOUT ROWID""",
)

# Answers that later requests go on from, see `responses.py`.
_RESPONSES = (
    """CREATE TABLE responses (
        id TEXT PRIMARY KEY,
        key TEXT NOT NULL,
        route TEXT NOT NULL,
        at INTEGER NOT NULL,
        until INTEGER NOT NULL,
        previous TEXT NOT NULL,
        items BLOB NOT NULL,
        answer BLOB NOT NULL,
        size INTEGER NOT NULL
    )""",
    "CREATE INDEX responses_until ON responses (until)",
    "CREATE INDEX responses_at ON responses (at, size)",
)

# The time to the first token in its parts.
_PARTS = (
    *(f"ALTER TABLE attempts ADD COLUMN {name} INTEGER" for name in ("wake_us", "queue_us", "prefill_us")),
    *(f"ALTER TABLE retired ADD COLUMN {name} INTEGER NOT NULL DEFAULT 0" for name in retire.PARTS),
)

# What a route's scorer made of a request, from 0 to 1.
_SCORE = tuple(f"ALTER TABLE attempts ADD COLUMN {name} REAL" for name in ("score", "bar"))

STEPS: tuple[Sequence[str], ...] = (_FIRST, (retire.TABLE,), _LABELS, _RESPONSES, _PARTS, _SCORE)
# How many columns an attempt had before the step of that number.
_COLUMNS = {5: 22, 6: 25}


class SchemaError(ConfigError):
    """The file was written by a newer Lumen."""


def migrate(connection: sqlite3.Connection, steps: Sequence[Sequence[str]] = STEPS) -> int:
    """Bring a file to the newest version; returns the version it had.

    Raises:
        SchemaError: it is newer than this program.
        sqlite3.Error: a step failed; the file is at the version before that step.
    """
    found = version(connection)
    if found > len(steps):
        raise SchemaError(f"The ledger is of version {found}, written by a newer Lumen; this one knows {len(steps)}.")
    for number in range(found, len(steps)):
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Two programs may have come here at once; the first one's work is not done again.
            if version(connection) == number:
                for statement in steps[number]:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {number + 1}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
    return found


def columns(connection: sqlite3.Connection) -> int | None:
    """How many columns of an attempt a file has, the first of them; `None`: all."""
    found = version(connection)
    return next((count for step, count in _COLUMNS.items() if found < step), None)


def version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
