"""What tests of the ledger share."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from lumen.ledger.rows import AttemptRow, HoldRow, Opening
from lumen.ledger.store import Ledger

NOON = 1_800_000_000 * 1_000_000


def attempt(request: str = "r", seq: int = 1, *, cost: int = 0, booked: int = NOON, **rest: Any) -> AttemptRow:
    row = AttemptRow(
        request=request, seq=seq, key="k", route="fast", target="p/m", provider="p", model="m", operation="chat",
        booked=booked, began_us=0, first_us=5, ended_us=9, input=3, output=4, cached=None, cache_write=None,
        reasoning=None, cost=cost, flags=0, outcome="ok", resumed_at=None, fidelity=None,
    )  # fmt: skip
    return row._replace(**rest)


def hold(request: str = "r", *, amount: int = 100, known: int = 0, booked: int = NOON) -> HoldRow:
    return HoldRow(request, "k", "fast", "p/m", "p", "m", "chat", booked, amount, known)


@asynccontextmanager
async def opened(path: Path, **options: Any) -> AsyncIterator[tuple[Ledger, Opening]]:
    ledger = Ledger(path, **options)
    found = ledger.open()
    ledger.start()
    try:
        yield ledger, found
    finally:
        ledger.flush(last=True)
        ledger.close()


async def committed(ledger: Ledger) -> None:
    """Wait until the file has all that was written down."""
    async with asyncio.timeout(100):
        while ledger._batch or ledger._writing is not None:
            ledger.flush()
            await asyncio.sleep(0.002)


async def written(ledger: Ledger, sql: str) -> list[Any]:
    """What the file says once it has all that was written down."""
    await committed(ledger)
    return rows(ledger._path, sql)


def rows(path: Path, sql: str) -> list[Any]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def consistent(path: Path) -> None:
    """The totals are the sum of the attempts, and the file is sound."""
    sums = rows(
        path, "SELECT booked / 86400000000, key, route, sum(cost) FROM attempts GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
    )
    kept = rows(path, "SELECT day, key, route, whole * 1000000 + rest FROM spend ORDER BY 1, 2, 3")
    assert kept == sums
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]
