"""What happens to old attempts: their sums of a day stay, the rows go. Blocks.

Sums are kept for every day, key, route, target and outcome, so that all that `report.py` can ask of whole days is
answered as before. How many requests there were is a count of distinct ones, which cannot be added up; what can is how
many attempts were the first of their request, at all, at that target, at that provider, or with that outcome.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable

from lumen.core.money import MICRO
from lumen.ledger.rows import ESTIMATED, UNPRICED

DAY = 86_400_000_000
# Attempts of one transaction, and seconds between two of them: the writer waits for neither for long.
_ROWS = 2000
_PAUSE = 0.02

TABLE = """CREATE TABLE retired (
    day INTEGER NOT NULL,
    key TEXT NOT NULL,
    route TEXT NOT NULL,
    target TEXT NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    outcome TEXT NOT NULL,
    requests INTEGER NOT NULL,
    target_requests INTEGER NOT NULL,
    provider_requests INTEGER NOT NULL,
    outcome_requests INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    input INTEGER NOT NULL,
    output INTEGER NOT NULL,
    cached INTEGER NOT NULL,
    cache_write INTEGER NOT NULL,
    reasoning INTEGER NOT NULL,
    busy_us INTEGER NOT NULL,
    whole INTEGER NOT NULL,
    rest INTEGER NOT NULL,
    estimated INTEGER NOT NULL,
    unpriced INTEGER NOT NULL,
    PRIMARY KEY (day, key, route, target, provider, model, outcome)
) WITHOUT ROWID"""
_NAMES = "day, key, route, target, provider, model, outcome"
# Sums that came later than the table.
PARTS = ("wake_us", "queue_us", "prefill_us")
_COUNTS = (
    "requests", "target_requests", "provider_requests", "outcome_requests", "attempts", "input", "output", "cached",
    "cache_write", "reasoning", "busy_us", *PARTS, "estimated", "unpriced",
)  # fmt: skip


def _first(*of: str) -> str:
    return f"row_number() OVER (PARTITION BY {', '.join(('request', *of))} ORDER BY seq) = 1"


# The sum of so few rests cannot overflow; what is above a whole one is carried over.
_SUM = f"""INSERT INTO retired ({_NAMES}, {", ".join(_COUNTS)}, whole, rest)
    SELECT booked / {DAY}, key, route, target, provider, model, outcome, sum(a), sum(b), sum(c), sum(d), count(*),
        coalesce(sum(input), 0), coalesce(sum(output), 0), coalesce(sum(cached), 0), coalesce(sum(cache_write), 0),
        coalesce(sum(reasoning), 0), sum(ended_us - began_us), coalesce(sum(wake_us), 0),
        coalesce(sum(queue_us), 0), coalesce(sum(prefill_us), 0), sum((flags & {ESTIMATED}) <> 0),
        sum((flags & {UNPRICED}) <> 0), sum(cost / {MICRO}) + sum(cost % {MICRO}) / {MICRO},
        sum(cost % {MICRO}) % {MICRO}
    FROM (SELECT *, {_first()} AS a, {_first("target")} AS b, {_first("provider")} AS c, {_first("outcome")} AS d
        FROM attempts WHERE booked < ?)
    WHERE true GROUP BY 1, 2, 3, 4, 5, 6, 7
    ON CONFLICT DO UPDATE SET {", ".join(f"{name} = {name} + excluded.{name}" for name in _COUNTS)},
        whole = whole + excluded.whole + (rest + excluded.rest) / {MICRO}, rest = (rest + excluded.rest) % {MICRO}"""


def retire(
    connection: sqlite3.Connection,
    days: int,
    stop: Callable[[], bool] = lambda: False,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Sum up attempts that are more than `days` days older than the newest one; how many there were.

    Raises:
        sqlite3.Error: it cannot be written now; what is done stays done.
    """
    newest = connection.execute("SELECT coalesce(max(booked), 0) FROM attempts").fetchone()[0]
    before, done = (newest // DAY - days) * DAY, 0
    while not stop():
        row = connection.execute(
            "SELECT booked FROM attempts WHERE booked < ? ORDER BY booked LIMIT 1 OFFSET ?", (before, _ROWS)
        ).fetchone()
        # The attempts of one request were booked in the same microsecond: none is torn apart.
        below = before if row is None else row[0] + 1
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.execute(_SUM, (below,))
            gone = connection.execute("DELETE FROM attempts WHERE booked < ?", (below,)).rowcount
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        done += gone
        if row is None:
            break
        sleep(_PAUSE)
    return done
