"""What a route saved, reckoned from its tries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lumen.core.money import FREE, Price
from lumen.learning.savings import saved
from lumen.ledger.report import Tried, reading
from lumen.ledger.rows import UNPRICED
from tests.ledger.ledgers import attempt, committed, opened

STRONG = Price(10, 20, cached_input=1)


def tried(request: str, target: str = "strong", **more: Any) -> Tried:
    given = {"operation": "chat/completions", "outcome": "ok", "input": 100, "output": 10, "cached": None,
             "cache_write": None, "cost": 0, "flags": 0}  # fmt: skip
    return Tried(**{"request": request, "target": target, **given, **more})


def test_what_others_answered_is_reckoned_at_the_price_of_the_strong_target() -> None:
    found = saved([tried("a", cost=1200), tried("b", "weak", cost=150), tried("c", "here")], "strong", STRONG)
    assert (found.requests, found.away, found.paid) == (3, 2, 1350)
    assert (found.instead, found.others, found.saved) == (2400, 150, 2250)
    assert found.always_strong == 3600 == 3 * 1200


def test_the_dark_and_what_failed_are_taken_off() -> None:
    found = saved(
        [
            # The other broke off, the strong one answered: nothing is saved, and something lost.
            tried("a", "weak", cost=70, outcome="upstream_error"), tried("a", cost=1200),
            tried("b", "weak", cost=150),
            tried("shadow_1", "weak", cost=30, operation="shadow"),
            tried("judge_1", "judge", cost=500, operation="judge"),
            tried("canary_1", cost=1, operation="canary"),
        ],
        "strong",
        STRONG,
    )  # fmt: skip
    assert (found.requests, found.away, found.dark) == (2, 1, 531)
    assert found.saved == 1200 - 70 - 150 - 531
    assert found.always_strong == 2400


def test_cached_tokens_would_have_been_cached_and_unknown_prices_save_nothing() -> None:
    assert saved([tried("a", "weak", cached=90)], "strong", STRONG).instead == 10 * 10 + 90 + 10 * 20
    found = saved([tried("a", "weak", flags=UNPRICED)], "strong", STRONG)
    assert (found.away, found.unpriced, found.saved) == (1, 1, 0)
    assert saved([], "strong", FREE).always_strong == 0


@pytest.mark.anyio
async def test_the_tries_of_a_route_are_read_from_the_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with opened(path) as (ledger, _):
        ledger.settle([attempt("a", route="chat", cost=7), attempt("b"), attempt("old", route="chat", booked=1)], None)
        await committed(ledger)
    with reading(path) as books:
        assert [(one.request, one.cost) for one in books.tries("chat", since=10)] == [("a", 7)]
