"""`lumen usage`, `lumen invoice`, and the limits that `lumen key` and `lumen route` set."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from lumen.config.load import load as load_config
from lumen.core.money import DOLLAR
from lumen.keys import Limits, load
from lumen.ledger.rows import AttemptRow
from lumen.paths import Paths
from tests.cli.harness import Ran
from tests.ledger.ledgers import attempt, committed, opened

Lumen = Callable[..., Ran]


def book(path: Path, *rows: AttemptRow) -> None:
    async def write() -> None:
        async with opened(path) as (ledger, _):
            ledger.settle(rows, None)
            await committed(ledger)

    asyncio.run(write())


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


NOVEMBER = at("2026-11-05T10:00")


@pytest.fixture
def used(home: Paths, lumen: Lumen) -> Paths:
    """A key that spent a dollar and a half at a provider, and free use of a local model without a key."""
    key = lumen("key", "add", "app", "--json").json["id"]
    book(
        home.ledger_file,
        attempt("a", booked=NOVEMBER, key=key, cost=3 * DOLLAR // 2, provider="acme", model="<big>"),
        attempt("b", booked=NOVEMBER, key="", provider="local", model="tiny", route="=cmd"),
        attempt("c", booked=NOVEMBER, key="key-gone", cost=1, provider="acme", model="new", flags=1),
    )
    return home


def test_usage_as_a_table(used: Paths, lumen: Lumen) -> None:
    ran = lumen("usage", "--since", "2026-11-01", "--by", "provider")
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[1].split() == ["provider", "requests", "input", "cached", "output", "cost"]
    assert lines[2].split() == ["acme", "2", "6", "0", "8", "$1.500000*"]
    assert lines[3].split() == ["local", "1", "3", "0", "4", "$0.000000"]
    assert lines[4].split()[0] == "total"
    assert lines[5].startswith("* 1 attempts")


def test_usage_by_key_knows_their_names(used: Paths, lumen: Lumen) -> None:
    found = lumen("usage", "--since", "2026-11-01", "--by", "key", "--json").json
    assert [row["name"] for row in found["rows"]] == ["app", "key-gone", "(no key)"]
    assert found["rows"][0]["cost_usd"] == "1.5"
    assert found["rows"][0]["cost_micro_usd"] == 1_500_000
    assert found["total"]["cost_usd"] == "1.500000000001"
    assert found["total"]["requests"] == 3


def test_usage_as_csv_holds_no_formula(used: Paths, lumen: Lumen) -> None:
    rows = list(csv.DictReader(io.StringIO(lumen("usage", "--since", "2026-11-01", "--by", "route", "--csv").out)))
    assert [row["route"] for row in rows] == ["fast", "'=cmd"]
    assert rows[0]["cost_usd"] == "1.500000000001"


def test_usage_of_a_time_in_which_nothing_happened(used: Paths, lumen: Lumen) -> None:
    ran = lumen("usage", "--since", "2027-01-01", "--json")
    assert ran.json["rows"] == []
    assert ran.json["total"]["cost_usd"] == "0"


@pytest.mark.parametrize("since", ["yesterday", "2026-11-99", "-5d", ""])
def test_a_time_that_is_none(used: Paths, lumen: Lumen, since: str) -> None:
    ran = lumen("usage", f"--since={since}")
    assert ran.code == 2
    assert "7d or a date" in ran.err


def test_before_anything_was_served(home: Paths, lumen: Lumen) -> None:
    for command in (["usage"], ["invoice", "--month", "2026-11"]):
        ran = lumen(*command)
        assert ran.code == 1
        assert "nothing has been written down yet" in ran.err


def test_an_invoice_to_read(used: Paths, lumen: Lumen) -> None:
    ran = lumen("invoice", "--month", "2026-11")
    assert ran.code == 0
    assert ran.out.startswith("Statement for 2026-11")
    words = [line.split() for line in ran.out.splitlines()]
    assert ["acme", "<big>", "1", "3", "0", "4", "$1.500000"] in words
    assert ["local", "tiny", "1", "3", "0", "4", "$0.000000"] in words
    assert ["app", "1", "3", "0", "4", "$1.500000"] in words


def test_an_invoice_as_csv_json_and_page(used: Paths, lumen: Lumen) -> None:
    rows = list(csv.DictReader(io.StringIO(lumen("invoice", "--month", "2026-11", "--csv").out)))
    assert [(row["provider"], row["model"], row["cost_micro_usd"]) for row in rows] == [
        ("acme", "<big>", "1500000"), ("acme", "new", "0"), ("local", "tiny", "0"),
    ]  # fmt: skip
    found = lumen("invoice", "--month", "2026-11", "--json").json
    assert found["total"]["cost_usd"] == "1.500000000001"
    assert [key["name"] for key in found["keys"]] == ["app", "key-gone", "(no key)"]
    page = lumen("invoice", "--month", "2026-11", "--html").out
    assert page.startswith("<!doctype html>")
    assert "&lt;big&gt;" in page
    assert "<big>" not in page
    assert "$1.500000" in page


@pytest.mark.parametrize("args", [("--month", "2026-13"), ("--csv", "--html"), ("--json", "--csv")])
def test_an_invoice_called_wrongly(used: Paths, lumen: Lumen, args: tuple[str, ...]) -> None:
    assert lumen("invoice", *args).code == 2


def test_limits_of_a_key(home: Paths, lumen: Lumen) -> None:
    ran = lumen("key", "add", "app", "--credit", "5usd", "--rpm", "60", "--tpm", "100k", "--concurrency", "8",
                "--daily", "0.5usd", "--monthly", "$3", "--per-minute", "0.01usd",
                "--max-request", "0.05usd", "--json")  # fmt: skip
    assert ran.json["limits"] == {
        "max_request": "0.05usd", "per_minute": "0.01usd", "daily": "0.5usd", "monthly": "3usd", "credit": "5usd",
        "rpm": 60, "tpm": 100_000, "concurrency": 8,
    }  # fmt: skip
    limits = load(home.keys_file).keys[0].limits
    assert (limits.credit, limits.tpm, limits.daily) == (5 * DOLLAR, 100_000, DOLLAR // 2)
    said = lumen("key", "set", "app", "--credit", "7usd", "--rpm", "none", "--tpm", "1M").out
    assert "7usd in all" in said
    assert "8 at once" in said
    changed = load(home.keys_file).keys[0].limits
    assert (changed.credit, changed.rpm, changed.tpm, changed.monthly) == (7 * DOLLAR, None, 1_000_000, 3 * DOLLAR)
    assert "7usd in all" in lumen("key", "ls").out
    assert lumen("key", "ls", "--json").json[0]["limits"]["credit"] == "7usd"


def test_a_key_without_limits(home: Paths, lumen: Lumen) -> None:
    lumen("key", "add", "app")
    assert load(home.keys_file).keys[0].limits == Limits()
    lumen("key", "set", "app", "--rpm", "5")
    assert "has no limits" in lumen("key", "set", "app", "--rpm", "none").out
    assert lumen("key", "set", "app").code == 2
    assert "no key 'other'" in lumen("key", "set", "other", "--rpm", "5").err


@pytest.mark.parametrize(
    ("flag", "text", "words"),
    [("--credit", "5", "such as 5usd"), ("--credit", "-5usd", "such as 5usd"), ("--rpm", "fast", "such as 60"),
     ("--tpm", "1.5k", "such as 60"), ("--daily", "0.60/1M", "such as 5usd")],
)  # fmt: skip
def test_a_limit_that_is_none(home: Paths, lumen: Lumen, flag: str, text: str, words: str) -> None:
    ran = lumen("key", "add", "app", f"{flag}={text}")
    assert ran.code == 2
    assert words in ran.err
    assert not home.keys_file.exists()


def test_limits_of_a_route(home: Paths, lumen: Lumen) -> None:
    lumen("config", "path")
    home.config_file.write_text("models:\n  small: {source: builtin:tiny}\n")
    ran = lumen("route", "set", "fast", "--target", "small", "--max-cost", "0.60/1M", "--daily", "20usd",
                "--max-request", "0.05usd", "--ttft", "300ms", "--max-output", "2k")  # fmt: skip
    assert ran.code == 0, ran.err
    route = load_config(home.config_file).routes["fast"]
    assert (route.budget.max_cost, route.budget.daily, route.budget.max_request) == (600_000, 20 * DOLLAR, DOLLAR // 20)
    assert (route.ttft, route.max_output) == (0.3, 2000)
    shown = lumen("route", "show", "fast").out
    assert "0.6/1M a token, 0.05usd a request, 20usd a day" in shown
    assert "ttft      300ms\n" in shown
    assert lumen("route", "show", "fast", "--json").json["budget"] == {
        "max_cost": "0.6/1M", "max_request": "0.05usd", "daily": "20usd",
    }  # fmt: skip
    assert lumen("route", "set", "fast", "--daily", "none", "--monthly", "100usd", "--ttft", "none").code == 0
    route = load_config(home.config_file).routes["fast"]
    assert (route.budget.daily, route.budget.monthly, route.budget.max_request) == (None, 100 * DOLLAR, DOLLAR // 20)
    assert route.ttft is None
    assert yaml.safe_load(home.config_file.read_text())["routes"]["fast"]["budget"]["monthly"] == "100usd"


def test_a_route_is_covered_while_its_model_wakes(home: Paths, lumen: Lumen) -> None:
    lumen("config", "path")
    home.config_file.write_text("models:\n  small: {source: builtin:tiny}\n  other: {source: builtin:tiny}\n")
    ran = lumen("route", "set", "fast", "--target", "small", "--cover")
    assert ran.code == 1 and "no second target that could cover" in ran.err
    assert lumen("route", "set", "fast", "--target", "small", "--target", "other", "--cover").code == 0
    assert load_config(home.config_file).routes["fast"].cover
    assert "cover     the next target answers" in lumen("route", "show", "fast").out
    assert lumen("route", "set", "fast", "--policy", "ordered").code == 0
    assert load_config(home.config_file).routes["fast"].cover, "what is not given stays"
    assert lumen("route", "set", "fast", "--no-cover").code == 0
    assert not load_config(home.config_file).routes["fast"].cover
    assert "cover" not in lumen("route", "show", "fast").out


@pytest.mark.parametrize(
    "args", [("--max-cost", "0.6usd"), ("--daily", "20"), ("--ttft", "soon"), ("--max-output", "x")]
)
def test_a_limit_of_a_route_that_is_none(home: Paths, lumen: Lumen, args: tuple[str, str]) -> None:
    ran = lumen("route", "set", "fast", "--target", "lumen-tiny", *args)
    assert ran.code == 2
    assert "lifts it" in ran.err or "to lift it" in ran.err
    assert not home.config_file.exists()
