from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lumen.core.errors import ConfigError
from lumen.ledger.report import month_span, reading
from tests.ledger.ledgers import attempt, committed, opened

pytestmark = pytest.mark.anyio


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A request that failed over, one of a local model, and one on each side of the end of November."""
    path = tmp_path / "l.db"
    async with opened(path) as (ledger, _):
        for rows in (
            [attempt("a", 1, booked=at("2026-11-05T10:00"), outcome="upstream_error", input=None, output=None),
             attempt("a", 2, booked=at("2026-11-05T10:00"), cost=1_500_000, provider="q", target="q/m", cached=2,
                     reasoning=1)],
            [attempt("b", booked=at("2026-11-06T00:00"), provider="local", target="tiny", model="tiny", route="local",
                     ended_us=2_000_000)],
            [attempt("c", booked=at("2026-11-30T23:59:59"), cost=700_000, key="", flags=1)],
            [attempt("d", booked=at("2026-12-01T00:00"), cost=9, flags=4)],
        ):  # fmt: skip
            ledger.settle(rows, None)
            await committed(ledger)
    return path


async def test_usage_by_anything(path: Path) -> None:
    with reading(path) as ledger:
        by = {group: {row.name: row.sums for row in ledger.usage(group)} for group in ("key", "route", "model", "day")}
        total = ledger.total()
        assert [row.name for row in ledger.usage("provider")] == ["q", "p", "local"]
        assert [row.name for row in ledger.usage("outcome")] == ["ok", "upstream_error"]
    assert (total.requests, total.attempts, total.failed, total.cost) == (4, 5, 1, 2_200_009)
    assert (total.input, total.output, total.cached, total.reasoning) == (12, 16, 2, 1)
    assert (total.estimated, total.unpriced) == (1, 1)
    assert {name: sums.cost for name, sums in by["key"].items()} == {"k": 1_500_009, "": 700_000}
    assert {name: sums.requests for name, sums in by["route"].items()} == {"fast": 3, "local": 1}
    assert {name: sums.cost for name, sums in by["model"].items()} == {"q/m": 1_500_000, "p/m": 700_009, "tiny": 0}
    assert list(by["day"]) == ["2026-11-05", "2026-11-06", "2026-11-30", "2026-12-01"]


async def test_since_and_until(path: Path) -> None:
    with reading(path) as ledger:
        assert ledger.total(at("2026-11-06T00:00") // 10**6).requests == 3
        assert ledger.total(at("2026-11-06T00:00") // 10**6, at("2026-11-30T23:59:59") // 10**6).requests == 1
        assert ledger.usage("day", at("2027-01-01") // 10**6) == []
        assert ledger.total(at("2027-01-01") // 10**6).cost == 0


async def test_a_statement_adds_up(path: Path) -> None:
    with reading(path) as ledger:
        november = ledger.statement("2026-11", datetime(2026, 11, 30, 23, tzinfo=UTC))
        assert ledger.statement("2026-11", datetime(2026, 12, 1, tzinfo=UTC)).open is False
        assert ledger.statement("2026-12", datetime(2026, 12, 1, tzinfo=UTC)).total.cost == 9
    assert november.open
    assert [(item.provider, item.model, item.sums.cost) for item in november.items] == [
        ("local", "tiny", 0), ("p", "m", 700_000), ("q", "m", 1_500_000),
    ]  # fmt: skip
    assert november.items[0].sums.busy_us == 2_000_000
    assert november.total.cost == sum(item.sums.cost for item in november.items) == 2_200_000
    assert sum(row.sums.cost for row in november.by_key) == 2_200_000


def test_months() -> None:
    assert month_span("2026-12") == (at("2026-12-01") // 10**6, at("2027-01-01") // 10**6)
    for wrong in ("2026", "2026-13", "26-1", "", "2026-11-01"):
        with pytest.raises(ValueError, match="2026-11"):
            month_span(wrong)


async def test_reading_beside_a_writer_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    async with opened(path) as (ledger, _):
        ledger.settle([attempt(cost=5)], None)
        with reading(path) as reader:
            assert reader.total().cost == 5
            with pytest.raises(sqlite3.OperationalError):
                reader._connection.execute("DELETE FROM attempts")


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    def fails(path: Path, words: str) -> None:
        with pytest.raises(ConfigError, match=words), reading(path):
            pass

    fails(tmp_path / "none.db", "nothing has been written")
    (tmp_path / "text.db").write_text("not a ledger" * 100)
    fails(tmp_path / "text.db", "no ledger")
    (tmp_path / "old.db").touch()
    fails(tmp_path / "old.db", "older version")
    newer = sqlite3.connect(tmp_path / "new.db")
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    fails(tmp_path / "new.db", "newer")
