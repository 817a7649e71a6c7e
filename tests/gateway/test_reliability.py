"""What keeps one request going, seen from outside: every limit by itself, whom to ask, hedges within the money."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from lumen.config.schema import Budget, Route, Target, Timeouts
from lumen.core.breaker import IN_A_ROW
from lumen.core.money import Price
from lumen.gateway import attempt
from lumen.gateway.table import Origin, Origins, Table
from tests.gateway.conftest import Up, fake
from tests.gateway.failover_cells import Seen
from tests.ledger.ledgers import written

pytestmark = pytest.mark.anyio


def routed(up: Up, *targets: str, **more: Any) -> None:
    """The route `fast`, of targets with a price."""
    upstream = up.state.table._origins.remote["fake"].upstream

    def of(model: str) -> Any:
        dialect, can, offer = fake(model)
        return dialect, can, replace(offer, price=Price(output=1000))

    route = Route(tuple(Target(f"fake/{name}") for name in targets), **{"policy": "ordered", **more})
    up.state.config = replace(up.state.config, routes={"fast": route})
    up.state.table = Table(up.state.config, Origins({}, {"fake": Origin(upstream, of)}), 1)
    up.state.billing.configure(up.state.config, up.state.ring)


def ask(**more: Any) -> dict[str, Any]:
    return {"model": "fast", "messages": [{"role": "user", "content": "go"}], **more}


def asked(up: Up) -> Counter[str]:
    return Counter(request["model"] for request in up.emulator.requests)


# -- limits, each on its own -------------------------------------------------------------------------------------


async def test_the_limit_for_connecting(up: Up, monkeypatch: pytest.MonkeyPatch) -> None:
    routed(up, "words-1", timeouts=Timeouts(connect=0.05, headers=20.0, first_token=20.0))
    origin = up.state.table._origins.remote["fake"].upstream._origin  # type: ignore[attr-defined]

    async def never(loop: object) -> None:
        await asyncio.sleep(20)

    monkeypatch.setattr(type(origin), "connect", lambda self, loop: never(loop))
    async with asyncio.timeout(100):
        status, answer, _ = await up.post("/v1/chat/completions", ask())
    assert (status, answer["error"]["code"]) == (502, "upstream_unreachable")


@pytest.mark.parametrize(
    ("script", "own"),
    [
        ("silent", Timeouts(headers=0.1, first_token=20.0, gap=20.0, total=20.0)),
        ("headers", Timeouts(headers=20.0, first_token=0.1, gap=20.0, total=20.0)),
        ("silent", Timeouts(headers=20.0, first_token=20.0, gap=20.0, total=0.1)),
    ],
)
async def test_a_limit_before_the_first_token(up: Up, script: str, own: Timeouts) -> None:
    routed(up, script, timeouts=own)
    async with asyncio.timeout(100):
        status, answer, _ = await up.post("/v1/chat/completions", ask(stream=True))
    assert (status, answer["error"]["code"]) == (504, "upstream_timeout")
    # It is not asked twice.
    assert len(up.emulator.requests) == 1


@pytest.mark.parametrize(
    ("script", "own"),
    [
        ("stall-2", Timeouts(gap=2.0, total=60.0)),
        # A token each 40 ms is no silence, but there is an end to everything.
        ("slow-200-40", Timeouts(gap=20.0, total=3.0)),
        # Nor is it too slow, unless the route says so.
        ("slow-200-40", Timeouts(gap=5.0, total=20.0, min_rate=100.0)),
    ],
)
async def test_a_limit_in_the_middle(up: Up, monkeypatch: pytest.MonkeyPatch, script: str, own: Timeouts) -> None:
    monkeypatch.setattr(attempt, "_RATE_WINDOW", 2.0)
    routed(up, script, timeouts=own)
    async with asyncio.timeout(100):
        status, text, _ = await up.stream(ask())
    seen = Seen.of(status, text)
    assert seen.said.startswith("word0 word1 ") and not seen.done
    assert seen.error is not None and seen.error["code"] == "upstream_timeout"


async def test_a_steady_drip_is_slow_and_not_stalled(up: Up, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt, "_RATE_WINDOW", 0.1)
    routed(up, "slow-12-40", timeouts=Timeouts(gap=5.0, total=20.0, min_rate=0.5))
    status, text, _ = await up.stream(ask())
    assert Seen.of(status, text).done


async def test_tokens_that_come_many_together_are_no_slow_ones(up: Up, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some vendors send few events with much text; the rate is of tokens, not of events."""
    monkeypatch.setattr(attempt, "_RATE_WINDOW", 0.1)
    routed(up, "slow-12-40-800", timeouts=Timeouts(gap=5.0, total=20.0, min_rate=100.0))
    status, text, _ = await up.stream(ask())
    assert Seen.of(status, text).done


# -- whom to ask -------------------------------------------------------------------------------------------------


async def test_a_broken_model_says_nothing_about_another_at_the_same_address(up: Up) -> None:
    routed(up, "status-503", "words-2")
    for _ in range(IN_A_ROW + 1):
        assert (await up.post("/v1/chat/completions", ask()))[0] == 200
    now = asyncio.get_running_loop().time()
    assert list(up.state.health.out(["fake/status-503", "fake/words-2"], now)) == ["fake/status-503"]
    before = asked(up)["status-503"]
    for _ in range(5):
        assert (await up.post("/v1/chat/completions", ask()))[0] == 200
    assert asked(up)["status-503"] == before
    status = {one["name"]: one for one in up.state.health.snapshot(now)}
    assert status["fake/status-503"]["why"] and status["fake/words-2"]["state"] == "closed"


async def test_the_last_usable_target_is_asked_whatever_it_did(up: Up) -> None:
    routed(up, "status-503")
    for number in range(1, 4 * IN_A_ROW):
        assert (await up.post("/v1/chat/completions", ask()))[0] == 503
        assert asked(up)["status-503"] >= number


async def test_a_long_wait_that_a_target_asks_for_is_kept_by_everybody(up: Up) -> None:
    routed(up, "limit-30", "words-2")
    for _ in range(4):
        assert (await up.post("/v1/chat/completions", ask()))[0] == 200
    assert asked(up) == {"limit-30": 1, "words-2": 4}
    (out,) = up.state.health.out(["fake/limit-30"], asyncio.get_running_loop().time()).values()
    assert 25 < out.until - out.since <= 30


async def test_a_short_wait_is_waited_out_at_the_same_target(up: Up) -> None:
    routed(up, "limit-1", "words-2")
    started = asyncio.get_running_loop().time()
    assert (await up.post("/v1/chat/completions", ask()))[2]["x-lumen-target"] == "fake/words-2"
    # That target says it once more, and the next one is asked.
    assert asyncio.get_running_loop().time() - started >= 1.0
    assert asked(up) == {"limit-1": 2, "words-2": 1}


# -- hedges ------------------------------------------------------------------------------------------------------


def quick(up: Up, name: str) -> None:
    """What was learned of this target: it used to answer within 20 ms."""
    now = asyncio.get_running_loop().time()
    for _ in range(30):
        given = up.state.health.begin(name, now - 0.02, 100)
        assert given is not None
        up.state.health.serving(given, now, 0.02)
        up.state.health.ended(given, now, True)


@pytest.mark.parametrize(("money", "hedged"), [(10_000, True), (9_999, False)])
async def test_a_hedge_is_made_only_where_there_is_money_for_both(up: Up, money: int, hedged: bool) -> None:
    budget = Budget(credit=money)
    timeouts = Timeouts(headers=20.0, first_token=0.6, gap=20.0)
    routed(up, "headers-1", "words-3", hedge="p95", budget=budget, timeouts=timeouts)
    quick(up, "fake/headers-1")
    status, text, _ = await up.stream(ask(max_tokens=5))
    seen = Seen.of(status, text)
    # Without the hedge the first one has all the time of its limit, and then the other one its money.
    assert (status, seen.said, seen.done) == (200, "word0 word1 word2 ", True)
    ledger = up.state.billing._ledger
    outcomes = await written(ledger, "SELECT target, outcome FROM attempts ORDER BY seq")
    assert outcomes == [("fake/headers-1", "hedged" if hedged else "upstream_timeout"), ("fake/words-3", "ok")]
    assert (await written(ledger, "SELECT sum(cost) FROM attempts"))[0][0] <= money
