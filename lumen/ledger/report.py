"""The reading side: what was used, by whatever one asks for, and a month's statement. Blocks; writes nothing.

Amounts are added up as whole micro-dollars and rests, because SQLite's own sum of pico-dollars would overflow.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from lumen.core.errors import ConfigError
from lumen.core.money import MICRO
from lumen.ledger.journal import left
from lumen.ledger.rows import ESTIMATED, UNPRICED, AttemptRow
from lumen.ledger.schema import STEPS, SchemaError, version
from lumen.ledger.store import reason

_MICROS = 1_000_000
# Seconds a reader waits for a writer; with a write-ahead log it hardly ever has to.
_BUSY = 5.0


class _By(NamedTuple):
    """A group in SQL: of single attempts, of the sums of old ones, and which of their counts tells its requests."""

    of_attempts: str
    of_retired: str
    requests: str = "requests"


GROUPS = {
    "key": _By("key", "key"),
    "route": _By("route", "route"),
    "model": _By("target", "target", "target_requests"),
    "provider": _By("provider", "provider", "provider_requests"),
    "day": _By("strftime('%Y-%m-%d', booked / 1000000, 'unixepoch')", "strftime('%Y-%m-%d', day * 86400, 'unixepoch')"),
    "outcome": _By("outcome", "outcome", "outcome_requests"),
}
_ALL = _By("1", "1")
_ITEM = _By("provider || char(10) || model", "provider || char(10) || model", "target_requests")
_ATTEMPTS = f"""count(DISTINCT request), count(*), coalesce(sum(outcome NOT IN ('ok', 'cancelled')), 0),
    coalesce(sum(input), 0), coalesce(sum(output), 0), coalesce(sum(cached), 0), coalesce(sum(cache_write), 0),
    coalesce(sum(reasoning), 0), coalesce(sum(ended_us - began_us), 0), coalesce(sum(wake_us), 0),
    coalesce(sum(queue_us), 0), coalesce(sum(prefill_us), 0), coalesce(sum(cost / {MICRO}), 0),
    coalesce(sum(cost % {MICRO}), 0), coalesce(sum((flags & {ESTIMATED}) <> 0), 0),
    coalesce(sum((flags & {UNPRICED}) <> 0), 0)"""
_RETIRED = """sum(attempts), sum(attempts * (outcome NOT IN ('ok', 'cancelled'))), sum(input), sum(output), sum(cached),
    sum(cache_write), sum(reasoning), sum(busy_us), sum(wake_us), sum(queue_us), sum(prefill_us), sum(whole), sum(rest),
    sum(estimated), sum(unpriced)"""


@dataclass(frozen=True, slots=True)
class Sums:
    """Totals of some attempts. `cost`: pico-dollars. `busy_us`: microseconds that targets were at work.

    `wake_us`, `queue_us`, `prefill_us`: microseconds that were waited, see `rows.py`.
    `estimated`, `unpriced`: how many attempts had counts that were not reported, or no price.
    """

    requests: int
    attempts: int
    failed: int
    input: int
    output: int
    cached: int
    cache_write: int
    reasoning: int
    busy_us: int
    wake_us: int
    queue_us: int
    prefill_us: int
    cost: int
    estimated: int
    unpriced: int

    def __add__(self, other: Sums) -> Sums:
        return Sums(*[getattr(self, one.name) + getattr(other, one.name) for one in fields(self)])


_NOTHING = Sums(*[0] * len(fields(Sums)))


class Used(NamedTuple):
    """`name`: the key's id (empty: no key), the route, the target, the provider or the day."""

    name: str
    sums: Sums


class Tried(NamedTuple):
    """What one try came to; as in `rows.AttemptRow`."""

    request: str
    target: str
    operation: str
    outcome: str
    input: int | None
    output: int | None
    cached: int | None
    cache_write: int | None
    cost: int
    flags: int


class Item(NamedTuple):
    """One line of a statement."""

    provider: str
    model: str
    sums: Sums


@dataclass(frozen=True, slots=True)
class Statement:
    """A month of UTC over all providers and local capacity. `open`: the month is not over."""

    month: str
    items: list[Item]
    total: Sums
    by_key: list[Used]
    open: bool


class Reader:
    """A connection that only reads. Made by `reading`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def usage(self, by: str, since: int = 0, until: int | None = None) -> list[Used]:
        """Sums by one of `GROUPS`, the dearest first; days in their order. Times are Unix seconds, `until` excluded.

        Of days whose attempts were summed up, the whole counts if it began in that time.
        """
        found = [Used(name, sums) for name, sums in self._summed(GROUPS[by], since, until).items()]
        if by == "day":
            return sorted(found)
        return sorted(found, key=lambda used: (-used.sums.cost, -used.sums.attempts, used.name))

    def attempts(self, request: str) -> list[AttemptRow]:
        """Every try of one request, in order; none where it is not known, or only its sums are kept."""
        columns = ", ".join(AttemptRow._fields)
        found = self._connection.execute(f"SELECT {columns} FROM attempts WHERE request = ? ORDER BY seq", (request,))
        return [AttemptRow(*row) for row in found]

    def tries(self, route: str, since: int = 0) -> Iterator[Tried]:
        """Every try of a route since a Unix second, in the dark too; of days that are summed up there is none."""
        columns = ", ".join(Tried._fields)
        for row in self._connection.execute(
            f"SELECT {columns} FROM attempts WHERE route = ? AND booked >= ?", (route, since * _MICROS)
        ):
            yield Tried(*row)

    def total(self, since: int = 0, until: int | None = None) -> Sums:
        """Sums of everything in that time."""
        return self._summed(_ALL, since, until).get("1", _NOTHING)

    def _summed(self, by: _By, since: int, until: int | None) -> dict[str, Sums]:
        """Of single attempts, and of those of which only sums are left."""
        found: dict[str, Sums] = {}
        # One snapshot: an attempt that is being summed up is counted once.
        own = not self._connection.in_transaction
        if own:
            self._connection.execute("BEGIN")
        try:
            for name, sums in self._asked(
                by.of_attempts, _ATTEMPTS, "attempts", *_between("booked", since, until, 10**6)
            ):
                found[name] = sums
            what = f"sum({by.requests}), {_RETIRED}"
            for name, sums in self._asked(by.of_retired, what, "retired", *_between("day * 86400", since, until, 1)):
                found[name] = found.get(name, _NOTHING) + sums
        finally:
            if own:
                self._connection.execute("ROLLBACK")
        return found

    def _asked(
        self, group: str, what: str, table: str, where: str, times: tuple[int, ...]
    ) -> Iterator[tuple[str, Sums]]:
        for row in self._connection.execute(f"SELECT {group}, {what} FROM {table} {where} GROUP BY 1", times):
            yield str(row[0]), _sums(row[1:])

    def statement(self, month: str, now: datetime) -> Statement:
        """The statement of a month such as `2026-11`.

        Raises:
            ValueError: not a month.
        """
        since, until = month_span(month)
        # One snapshot: the lines must add up to the total although requests go on being served.
        self._connection.execute("BEGIN")
        try:
            found = sorted(self._summed(_ITEM, since, until).items(), key=lambda item: item[0].split("\n"))
            named = [(*name.partition("\n"), sums) for name, sums in found]
            items = [Item(provider, model, sums) for provider, _, model, sums in named]
            return Statement(
                month, items, self.total(since, until), self.usage("key", since, until), now.timestamp() < until
            )
        finally:
            self._connection.execute("ROLLBACK")


@contextmanager
def reading(path: Path) -> Iterator[Reader]:
    """The ledger at `path`, to read; it may be written meanwhile.

    Raises:
        ConfigError: there is none, it cannot be read, or it is newer than this program.
    """
    if not path.exists():
        raise ConfigError("nothing has been written down yet; it is made when the gateway first runs")
    connection: sqlite3.Connection | None = None
    fresh = [row for record in left(path) for row in record.rows]
    try:
        # Not `mode=ro`: without its write-ahead log's index beside it such a file could not be opened.
        uri = f"{path.absolute().as_uri()}?mode=rw"
        connection = sqlite3.connect(uri, uri=True, timeout=_BUSY, isolation_level=None)
        found = version(connection)
        if found > len(STEPS):
            raise SchemaError(f"The ledger is of version {found}, written by a newer Lumen.")
        if found < len(STEPS):
            raise ConfigError("the ledger is of an older version; start the gateway once, which brings it up to date")
        if fresh:
            _lay_over(connection, fresh)
        connection.execute("PRAGMA query_only = ON")
        yield Reader(connection)
    except sqlite3.Error as error:
        raise ConfigError(f"the ledger cannot be read: {reason(error)}") from error
    finally:
        if connection is not None:
            connection.close()


def _lay_over(connection: sqlite3.Connection, fresh: Sequence[AttemptRow]) -> None:
    """Show rows that are only written down beside the ledger as if they were in it, to this connection alone."""
    connection.execute("CREATE TEMP TABLE fresh AS SELECT * FROM main.attempts WHERE 0")
    columns = "(" + ", ".join(AttemptRow._fields) + ")"
    places = ", ".join("?" * len(AttemptRow._fields))
    connection.executemany(f"INSERT INTO fresh {columns} VALUES ({places})", fresh)
    connection.execute(
        "CREATE TEMP VIEW attempts AS SELECT * FROM main.attempts UNION ALL SELECT * FROM fresh WHERE NOT EXISTS"
        " (SELECT 1 FROM main.attempts a WHERE a.request = fresh.request AND a.seq = fresh.seq)"
    )


def month_span(month: str) -> tuple[int, int]:
    """First and last (excluded) Unix second of a month of UTC written `YYYY-MM`.

    Raises:
        ValueError: not a month.
    """
    try:
        first = datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC)
    except ValueError:
        raise ValueError("expected a month such as 2026-11") from None
    after = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
    return int(first.timestamp()), int(after.timestamp())


def _between(column: str, since: int, until: int | None, scale: int) -> tuple[str, tuple[int, ...]]:
    if until is None:
        return f"WHERE {column} >= ?", (since * scale,)
    return f"WHERE {column} >= ? AND {column} < ?", (since * scale, until * scale)


def _sums(row: tuple[Any, ...]) -> Sums:
    *counts, whole, rest, estimated, unpriced = row
    return Sums(*(*counts, whole * MICRO + rest, estimated, unpriced))
