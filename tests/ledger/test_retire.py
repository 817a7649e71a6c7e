"""Old attempts become sums: whatever is asked of whole days is answered as before, and no limit of money moves."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lumen.ledger import opening
from lumen.ledger.report import GROUPS, reading
from lumen.ledger.retire import DAY, retire
from lumen.ledger.rows import AttemptRow
from tests.ledger.ledgers import NOON, attempt, committed, opened, rows

pytestmark = pytest.mark.anyio
FIRST = NOON // DAY


def requests(draw: random.Random, count: int) -> Iterator[list[AttemptRow]]:
    """Requests over ten days: retries at a target, failovers within a provider and between two."""
    for number in range(count):
        booked = (FIRST + draw.randrange(10)) * DAY + draw.randrange(DAY)
        key, route = draw.choice(("k1", "k2", "")), draw.choice(("fast", "slow"))
        made = []
        for seq in range(1, draw.choice((2, 2, 2, 3, 5))):
            provider, model = draw.choice((("p", "m"), ("p", "n"), ("q", "m")))
            known = draw.random() < 0.8
            made.append(
                attempt(
                    f"r{number}", seq, key=key, route=route, provider=provider, model=model,
                    target=f"{provider}/{model}", booked=booked, outcome=draw.choice(("ok", "ok", "cancelled", "bad")),
                    cost=draw.choice((0, 1, 999_999, 10**6, 8 * 10**18 + 7)), flags=draw.randrange(8),
                    input=draw.randrange(100) if known else None, output=7 if known else None,
                    cached=3 if known else None, reasoning=2 if known else None, ended_us=draw.randrange(9, 10**7),
                )
            )  # fmt: skip
        yield made


def asked(path: Path) -> dict[str, Any]:
    """All that can be asked of whole days."""
    with reading(path) as reader:
        found: dict[str, Any] = {by: reader.usage(by) for by in GROUPS}
        for day in range(12):
            since = (FIRST + day) * 86_400
            found[f"since {day}"] = [reader.usage(by, since) for by in GROUPS]
            found[f"day {day}"] = [reader.usage(by, since, since + 86_400) for by in GROUPS]
            found[f"total {day}"] = reader.total(since, since + 2 * 86_400)
        return found


@pytest.mark.parametrize("seed", range(3))
async def test_whole_days_are_answered_as_before(tmp_path: Path, seed: int) -> None:
    path, draw = tmp_path / "l.db", random.Random(seed)
    async with opened(path) as (ledger, _):
        for made in requests(draw, 300):
            ledger.settle(made, None)
        await committed(ledger)
    before, spend = asked(path), rows(path, "SELECT * FROM spend")
    count = rows(path, "SELECT count(*) FROM attempts")[0][0]
    gone = 0
    for days in (8, 8, 5, 1):
        connection = opening.connect(path, 1.0)
        gone += retire(connection, days)
        connection.close()
        assert asked(path) == before
        assert rows(path, "SELECT count(*) FROM attempts") == [(count - gone,)]
    (oldest,) = rows(path, "SELECT min(booked) FROM attempts")[0]
    (newest,) = rows(path, "SELECT max(booked) FROM attempts")[0]
    assert gone and oldest // DAY >= newest // DAY - 1
    assert rows(path, "SELECT * FROM spend") == spend
    # What budgets are counted by at the next start.
    async with opened(path) as (_, found):
        assert found.latest == newest
        assert found.totals


async def test_in_steps_that_tear_no_request_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lumen.ledger.retire._ROWS", 7)
    path = tmp_path / "l.db"
    async with opened(path) as (ledger, _):
        for made in requests(random.Random(9), 100):
            ledger.settle(made, None)
        await committed(ledger)
    before, steps = asked(path), []
    connection = opening.connect(path, 1.0)

    def between(_: float) -> None:
        steps.append(asked(path))
        held = rows(path, "SELECT count(*) FROM (SELECT 1 FROM attempts GROUP BY request HAVING min(seq) > 1)")
        assert held == [(0,)]

    retire(connection, 1, sleep=between)
    connection.close()
    assert len(steps) > 10 and all(step == before for step in steps)


async def test_a_gateway_does_it_by_itself_where_it_was_told_to(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    async with opened(path) as (ledger, _):
        for day in range(5):
            ledger.settle([attempt(f"r{day}", booked=NOON + day * DAY, cost=1)], None)
        async with asyncio.timeout(100):
            while rows(path, "SELECT count(*) FROM attempts") != [(5,)]:
                await asyncio.sleep(0.01)
        ledger.retain(2)
        async with asyncio.timeout(100):
            while rows(path, "SELECT count(*) FROM attempts") != [(3,)]:
                await asyncio.sleep(0.01)
        # It still writes.
        ledger.settle([attempt("new", booked=NOON + 4 * DAY, cost=1)], None)
    assert rows(path, "SELECT request FROM attempts ORDER BY booked, id") == [("r2",), ("r3",), ("r4",), ("new",)]
    assert rows(path, "SELECT sum(requests), sum(whole * 1000000 + rest) FROM retired") == [(2, 2)]
    with reading(path) as reader:
        assert (reader.total().requests, reader.total().cost) == (6, 6)
