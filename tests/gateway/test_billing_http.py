"""Money seen from outside: a whole gateway before an emulated provider with prices."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lumen.config.schema import Budget, Route, Target
from lumen.core.money import Price, parse_amount
from lumen.gateway.live import Live
from lumen.gateway.table import Origin, Origins, Table
from lumen.keys import KeyRing, Limits
from tests.gateway.conftest import Up, fake
from tests.gateway.told import AtOnce
from tests.ledger.ledgers import consistent, written

pytestmark = pytest.mark.anyio

PRICE = Price(input=1000, output=1_000_000)
DEAR = Price(input=10_000, output=10_000_000)
WORDS = 5
COST = 7 * 1000 + WORDS * 1_000_000


def limited(up: Up, budget: Budget | None = None, limits: Limits | None = None) -> None:
    """Prices for everything, a route `paid`, and limits on it or on the key."""
    upstream = up.state.table._origins.remote["fake"].upstream

    def priced(model: str) -> Any:
        dialect, can, offer = fake(model)
        return dialect, can, replace(offer, price=DEAR if model == "words-9" else PRICE)

    paid = Route((Target(f"fake/words-{WORDS}"),), budget=budget or Budget())
    broken = Route((Target("fake/cut-3"), Target(f"fake/words-{WORDS}")), policy="ordered")
    dear = Route((Target("fake/words-9"), Target("fake/words-8"), Target("fake/words-9")), budget=budget or Budget())
    config = replace(up.state.config, routes={"paid": paid, "broken": broken, "dear": replace(dear, policy="ordered")})
    assert up.state.ring is not None
    ring = KeyRing([replace(up.state.ring.keys[0], limits=limits or Limits())])
    up.state.config, up.state.ring = config, ring
    up.state.table = Table(config, Origins({}, {"fake": Origin(upstream, priced)}), 1)
    up.state.billing.configure(config, ring)


def body(**more: Any) -> dict[str, Any]:
    return {"model": "paid", "messages": [{"role": "user", "content": "hi"}], "max_tokens": WORDS, **more}


def ledger(up: Up) -> Path:
    return up.state.billing._ledger._path


async def test_a_hundred_at_once_against_a_budget_for_ten(up: Up) -> None:
    size = len(str(body()).encode())
    worst = (size + 600) * 1000 + WORDS * 1_000_000
    limited(up, Budget(daily=10 * worst))
    answers = await asyncio.gather(*(up.post("/v1/chat/completions", body()) for _ in range(100)))
    served = [answer for answer in answers if answer[0] == 200]
    assert len(served) >= 9
    refused = [answer for answer in answers if answer[0] != 200]
    assert {(status, text["error"]["code"]) for status, text, _ in refused} == {(429, "insufficient_quota")}
    spent = await written(up.state.billing._ledger, "SELECT count(*), sum(cost) FROM attempts")
    assert spent == [(len(served), len(served) * COST)]
    assert spent[0][1] <= 10 * worst
    assert await written(up.state.billing._ledger, "SELECT count(*) FROM holds") == [(0,)]
    consistent(ledger(up))


async def test_spent_credit_is_not_to_be_retried(up: Up) -> None:
    limited(up, limits=Limits(credit=COST * 2))
    assert (await up.post("/v1/chat/completions", body()))[0] == 200
    status, answer, headers = await up.post("/v1/chat/completions", body())
    if status == 200:
        status, answer, headers = await up.post("/v1/chat/completions", body())
    assert (status, answer["error"]["code"], answer["error"]["type"]) == (
        429, "insufficient_quota", "insufficient_quota",
    )  # fmt: skip
    assert "Retry-After" not in headers


async def test_a_price_ceiling_says_what_would_have_been_needed(up: Up) -> None:
    limited(up, Budget(max_cost=999_999))
    status, answer, _ = await up.post("/v1/chat/completions", body())
    assert (status, answer["error"]["code"]) == (400, "budget_unsatisfiable")
    assert "needs a limit of 1/1M" in answer["error"]["message"]
    assert not up.emulator.requests


async def test_a_limit_of_one_request_says_what_the_cheapest_would_need(up: Up) -> None:
    limited(up, Budget(max_request=1_000_000))
    status, answer, headers = await up.post("/v1/chat/completions", body(model="dear"))
    assert (status, answer["error"]["code"]) == (400, "budget_unsatisfiable")
    assert "x-should-retry" not in headers
    needed = re.search(r"raise the limit to (\S+)usd or more", answer["error"]["message"])
    assert needed is not None
    # What it says is enough, and a hair less is not.
    limited(up, Budget(max_request=parse_amount(f"{needed[1]}usd") - 1))
    assert (await up.post("/v1/chat/completions", body(model="dear")))[0] == 400
    limited(up, Budget(max_request=parse_amount(f"{needed[1]}usd")))
    status, _, headers = await up.post("/v1/chat/completions", body(model="dear"))
    assert (status, headers["x-lumen-target"]) == (200, "fake/words-8")


async def test_a_rate_says_when_to_come_back(up: Up) -> None:
    limited(up, limits=Limits(rpm=1))
    assert (await up.post("/v1/chat/completions", body()))[0] == 200
    status, answer, headers = await up.post("/v1/chat/completions", body())
    assert (status, answer["error"]["code"]) == (429, "rate_limit_exceeded")
    assert 1 <= int(headers["Retry-After"]) <= 60


async def test_a_stream_whose_end_was_seen_is_in_the_ledger(up: Up) -> None:
    limited(up)
    for number in range(1, 4):
        status, text, _ = await up.stream(body())
        assert status == 200
        assert text.endswith("data: [DONE]\n\n")
        assert await written(up.state.billing._ledger, "SELECT count(*), sum(cost) FROM attempts") == [
            (number, number * COST)
        ]
    assert await written(up.state.billing._ledger, "SELECT DISTINCT input, output, flags, outcome FROM attempts") == [
        (7, WORDS, 0, "ok")
    ]


async def test_the_parts_of_the_time_to_the_first_token_are_in_the_ledger(up: Up) -> None:
    """As the answer's own headers tell them; nobody sees the first token of a whole answer."""
    limited(up)
    _, _, headers = await up.stream(body(model="fake/slow-5-20"))
    told = {name: float(ms) for name, ms in re.findall(r"(\w+);dur=([\d.]+)", headers["server-timing"])}
    await up.post("/v1/chat/completions", body())
    found = await written(
        up.state.billing._ledger, "SELECT wake_us, queue_us, prefill_us, first_us FROM attempts ORDER BY booked"
    )
    (wake, queue, prefill, first), whole = found
    assert wake == 0
    # Two clocks of one machine, read one after the other.
    assert queue / 1000 == pytest.approx(told["queue"], abs=0.2) and queue > 0
    assert prefill / 1000 == pytest.approx(told["prefill"], abs=20)
    assert queue + prefill <= first
    assert whole[:3] == (0, 0, None)


async def test_both_halves_of_an_answer_are_billed(up: Up) -> None:
    limited(up)
    status, text, _ = await up.stream(body(model="broken", max_tokens=50))
    assert status == 200
    assert "[DONE]" in text
    found = await written(
        up.state.billing._ledger, "SELECT seq, target, outcome, output > 0, cost > 0 FROM attempts ORDER BY seq"
    )
    assert [row[0] for row in found] == list(range(1, len(found) + 1))
    assert found[0][1:3] == ("fake/cut-3", "upstream_disconnected")
    assert found[-1][1:] == (f"fake/words-{WORDS}", "ok", 1, 1)
    assert await written(up.state.billing._ledger, "SELECT count(DISTINCT request) FROM attempts") == [(1,)]
    consistent(ledger(up))


async def test_an_unset_limit_is_clamped_on_the_way_upstream(up: Up) -> None:
    limited(up, Budget(daily=10**13))
    assert (await up.post("/v1/chat/completions", body(max_tokens=None)))[0] == 200
    sent = up.emulator.requests[-1]
    assert sent.get("max_tokens") == 4096 or sent.get("max_completion_tokens") == 4096


async def test_who_watches_is_told_the_cost(up: Up) -> None:
    limited(up)
    live = Live()
    up.state.observers = (AtOnce(live),)
    await up.post("/v1/chat/completions", body())
    assert live.since(0, 9)[1][0]["cost"] == COST
    assert live.routes(asyncio.get_running_loop().time())["paid"]["cost"] == COST
    assert up.state.billing.status()["today"] == COST // 1_000_000
