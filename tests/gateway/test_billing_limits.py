"""Limits of money and rate around requests: who is let in, with what, and who is not."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from lumen.config.schema import Budget, Ledger
from lumen.core.errors import LumenError
from lumen.core.money import DOLLAR, Price
from lumen.gateway.billing import Billing
from lumen.gateway.tab import Line, Offer, Tab
from lumen.keys import KeyRing, Limits
from lumen.ledger.rows import BEYOND, ESTIMATED, UNPRICED
from tests.gateway.billed import DEAR, FREE, PAID, SECOND, UNKNOWN, Clock, ask, bench, refusal, said, setup, unpaid
from tests.ledger.ledgers import consistent

pytestmark = pytest.mark.anyio


async def test_a_hundred_at_once_against_a_budget_for_ten(tmp_path: Path) -> None:
    async with bench(tmp_path / "l.db", route=Budget(daily=100)) as gate:
        done = await asyncio.gather(*(gate.serve(tokens=10) for _ in range(100)), return_exceptions=True)
        served = [one for one in done if isinstance(one, Tab)]
        codes = {(one.status, one.code) for one in done if isinstance(one, LumenError)}
        assert len(served) == 10
        assert codes == {(429, "insufficient_quota")}
        assert await gate.rows("SELECT sum(cost) FROM attempts") == [(100,)]
    consistent(gate.path)


@pytest.mark.parametrize("where", ["key", "route", "box"])
@pytest.mark.parametrize("limit", ["daily", "monthly", "credit"])
async def test_a_budget_for_ten_admits_ten_in_a_row(tmp_path: Path, where: str, limit: str) -> None:
    money = {limit: 100}
    limits = Limits(**money) if where == "key" else None
    route = Budget(**money) if where == "route" else None
    async with bench(tmp_path / "l.db", limits, route, Budget(**money) if where == "box" else None) as gate:
        for _ in range(10):
            await gate.serve(tokens=10)
        error = await refusal(gate.serve(tokens=10))
        assert (error.code, error.headers) == ("insufficient_quota", {"x-should-retry": "false"})
        # What costs nothing goes on.
        await gate.serve(FREE)


@pytest.mark.parametrize("where", ["key", "route", "box"])
async def test_a_minute_is_waited_for(tmp_path: Path, where: str) -> None:
    limits = Limits(per_minute=20) if where == "key" else None
    route, box = (Budget(per_minute=20) if where == one else None for one in ("route", "box"))
    async with bench(tmp_path / "l.db", limits, route, box, start=(clock := Clock())) as gate:
        clock.tick(60 - clock.wall // SECOND % 60 + 17)
        for _ in range(2):
            await gate.serve(tokens=10)
        error = await refusal(gate.serve(tokens=10))
        assert (error.status, error.code, error.retry_after) == (429, "rate_limit_exceeded", 43)
        assert "x-should-retry" not in error.headers
        clock.tick(43)
        await gate.serve(tokens=10)
    assert await gate.rows("SELECT sum(cost) FROM attempts") == [(30,)]


@pytest.mark.parametrize("where", ["key", "route", "box"])
async def test_one_request_may_cost_so_much(tmp_path: Path, where: str) -> None:
    limits = Limits(max_request=9) if where == "key" else None
    route, box = (Budget(max_request=9) if where == one else None for one in ("route", "box"))
    async with bench(tmp_path / "l.db", limits, route, box) as gate:
        for _ in range(3):
            error = await refusal(gate.serve(tokens=10))
            assert (error.status, error.code) == (400, "budget_unsatisfiable")
            assert "0.00000000001usd or more" in error.message
            await gate.serve(tokens=9, call=ask(9))


@pytest.mark.parametrize(("limit", "days"), [("daily", 1), ("monthly", 31)])
async def test_what_was_spent_is_forgotten_when_its_window_is_over(tmp_path: Path, limit: str, days: int) -> None:
    async with bench(tmp_path / "l.db", None, Budget(**{limit: 10}), start=(clock := Clock())) as gate:
        for _ in range(3):
            await gate.serve(tokens=10)
            assert (await refusal(gate.serve(tokens=10))).code == "insufficient_quota"
            clock.tick(days * 86_400)
    async with bench(tmp_path / "c.db", None, Budget(credit=10), start=(clock := Clock())) as gate:
        await gate.serve(tokens=10)
        clock.tick(10_000 * 86_400)
        assert (await refusal(gate.serve(tokens=10))).code == "insufficient_quota"


async def test_ten_open_requests_do_not_pin_a_key(tmp_path: Path) -> None:
    """Of the dearest kind: 15 and 75 dollars a million tokens, a window of 200,000, and no limit named."""
    opus = Offer("p/m", "p", "m", Price(input=15 * 10**6, output=75 * 10**6), context=200_000, most_output=32_000)
    async with bench(tmp_path / "l.db", Limits(credit=25 * DOLLAR)) as gate:
        tabs = [gate.open(opus, call=ask(None), body=8_000) for _ in range(10)]
        worst = [(tab.begin(opus)).worst for tab in tabs]
        # What is known of no answer yet is 4,096 tokens.
        assert sum(worst) < 5 * DOLLAR
        await gate.serve(opus, tokens=10, call=ask(None))
        for tab in tabs:
            tab.close("cancelled")


async def test_old_attempts_become_sums_without_a_limit_moving(tmp_path: Path) -> None:
    async with bench(tmp_path / "l.db", None, Budget(credit=100), start=(clock := Clock())) as gate:
        for _ in range(4):
            await gate.serve(tokens=10)
            clock.tick(86_400)
        config, ring = setup(route=Budget(credit=100))
        gate.billing.configure(replace(config, ledger=Ledger(keep_days=1)), ring)
        async with asyncio.timeout(100):
            while await gate.rows("SELECT count(*) FROM attempts") != [(2,)]:
                await asyncio.sleep(0.01)
        await gate.serve(tokens=10)
    async with bench(tmp_path / "l.db", None, Budget(credit=60), start=clock) as gate:
        gate.count = 10
        await gate.serve(tokens=10)
        assert (await refusal(gate.serve(tokens=10))).code == "insufficient_quota"


async def test_limits_outlive_a_restart_and_count_what_came_before_them(tmp_path: Path) -> None:
    path, clock = tmp_path / "l.db", Clock()
    async with bench(path, start=clock) as gate:
        for _ in range(5):
            await gate.serve(tokens=10)
        ring = KeyRing([gate.key])
        gate.billing.configure(setup(route=Budget(credit=60))[0], ring)
        await gate.serve(tokens=10)
        assert (await refusal(gate.serve(tokens=10))).code == "insufficient_quota"
    async with bench(path, None, Budget(credit=75), start=clock) as gate:
        gate.count = 100
        await gate.serve(tokens=10)
        assert (await refusal(gate.serve(tokens=10))).code == "insufficient_quota"
        assert gate.billing.status()["budgets"] == [
            {"scope": "route", "name": "fast", "limit": "credit", "cap": 0, "spent": 0, "held": 0}
        ]
    consistent(path)


async def test_days_end_also_when_the_clock_is_set_back(tmp_path: Path) -> None:
    path, clock = tmp_path / "l.db", Clock()
    async with bench(path, None, Budget(daily=10), start=clock) as gate:
        await gate.serve(tokens=10)
        clock.wall -= 30 * 86_400 * SECOND
        assert (await refusal(gate.serve(tokens=10))).code == "insufficient_quota"
    # A new process knows only the wall clock and the ledger.
    async with bench(path, None, Budget(daily=10), start=clock) as gate:
        gate.count = 10
        assert (await refusal(gate.serve(tokens=10))).code == "insufficient_quota"
        clock.tick(2 * 86_400)
        await gate.serve(tokens=10)
        assert (await refusal(gate.serve(tokens=10))).code == "insufficient_quota"
    assert await gate.rows("SELECT count(DISTINCT booked / 86400000000) FROM attempts") == [(2,)]


async def test_a_clock_set_back_stops_what_costs_money_for_a_minute_at_most(tmp_path: Path) -> None:
    path, clock = tmp_path / "l.db", Clock()
    async with bench(path, None, Budget(daily=1000), start=clock) as gate:
        running = gate.open(PAID)
        line = running.begin(PAID)
        clock.tick(10)
        clock.wall -= 3600 * SECOND
        error = await refusal(gate.serve())
        assert (error.status, error.code, error.retry_after) == (503, "ledger_unavailable", 60)
        assert "clock was set back" in error.message
        assert gate.told == ["the machine's clock was set back"]
        ledger = gate.billing.status()["ledger"]
        assert (ledger["healthy"], ledger["why"]) == (False, "the machine's clock was set back")
        # What runs is finished and booked, what is free is served, and nothing of the refused one stays held.
        for event in said(8):
            line.note(event)
        running.close()
        await gate.serve(FREE)
        assert gate.billing.status()["budgets"][0]["held"] == 0
        assert await gate.rows("SELECT cost FROM attempts WHERE request = 'req_1'") == [(8,)]
        clock.tick(59)
        assert (await refusal(gate.serve())).retry_after == 1
        clock.tick(1)
        await gate.serve()
        gate.billing._look()
        assert gate.told[1:] == [None]
    consistent(path)


async def test_a_clock_that_is_put_right_again_costs_no_more_than_that(tmp_path: Path) -> None:
    async with bench(tmp_path / "l.db", None, Budget(daily=1000), start=(clock := Clock())) as gate:
        clock.wall -= 3600 * SECOND
        # Noticed by itself, once a second.
        gate.billing._look()
        clock.tick(1)
        assert (await refusal(gate.serve())).retry_after == 59
        clock.wall += 3600 * SECOND
        await gate.serve()
        # As by a time server.
        clock.wall -= 2 * SECOND
        await gate.serve()
        gate.billing._look()
        assert gate.told == ["the machine's clock was set back", None]


async def test_every_try_counts_against_the_same_limit(tmp_path: Path) -> None:
    async with bench(tmp_path / "l.db", None, Budget(max_request=15)) as gate:
        tab = gate.open(PAID, PAID)
        first = tab.begin(PAID)
        for event in said(6)[:6]:
            first.note(event)
        first.end("upstream_disconnected")
        error = unpaid(tab.begin)
        assert error.code == "budget_unsatisfiable"
        tab.close(error.code)
    # An estimate of what was delivered: as many tokens as there were events.
    assert await gate.rows("SELECT seq, output, cost, flags, outcome FROM attempts") == [
        (1, 6, 6, ESTIMATED, "upstream_disconnected")
    ]


async def test_a_failover_after_a_refusal_needs_no_more_than_one_hold(tmp_path: Path) -> None:
    async with bench(tmp_path / "l.db", None, Budget(max_request=10)) as gate:
        tab = gate.open(PAID, PAID)
        (tab.begin(PAID)).end("upstream_error")
        line = tab.begin(PAID)
        line.resumed(3, "prefill")
        for event in said(10):
            line.note(event)
        tab.close()
        assert await gate.rows("SELECT seq, input, cost, outcome, resumed_at, fidelity FROM attempts") == [
            (1, None, 0, "upstream_error", None, None), (2, 7, 10, "ok", 3, "prefill"),
        ]  # fmt: skip


async def test_a_continuation_holds_only_what_is_left_of_the_answer(tmp_path: Path) -> None:
    async with bench(tmp_path / "l.db", None, Budget(max_request=15)) as gate:
        tab = gate.open(PAID, PAID, call=ask(12))
        first = tab.begin(PAID)
        for event in said(6)[:6]:
            first.note(event)
        first.end("upstream_disconnected")
        # Twelve were asked for, six are there: at most six more, and three for repeating where it stopped.
        assert (tab.begin(PAID, delivered=6, slack=3)).worst == 9
        tab.close("cancelled")
        tab = gate.open(PAID, PAID, call=ask(12))
        (tab.begin(PAID)).end("upstream_error")
        assert (tab.begin(PAID, delivered=40)).worst == 1
        tab.close("cancelled")


async def test_a_continuation_of_an_unlimited_answer_fits_what_is_left_of_the_budget(tmp_path: Path) -> None:
    async with bench(tmp_path / "l.db", None, Budget(daily=1000), most=600) as gate:
        tab = gate.open(PAID, PAID, call=ask(None))
        first = tab.begin(PAID)
        for event in said(300)[:300]:
            first.note(event)
        first.end("upstream_disconnected")
        await gate.serve(tokens=400, call=ask(400))
        # By another count only 200 were delivered, and nothing but the 300 still held is left.
        line = tab.begin(PAID, delivered=200)
        # The limit on its way is that of the whole answer, from which what was delivered is taken off again.
        assert (line.call.request.max_tokens, line.worst) == (500, 300)  # type: ignore[union-attr]
        tab.close("cancelled")


async def test_a_hedge_holds_for_both(tmp_path: Path) -> None:
    async with bench(tmp_path / "l.db", None, Budget(daily=19)) as gate:
        tab = gate.open(PAID, PAID)
        tab.begin(PAID)
        assert unpaid(tab.begin).code == "budget_unsatisfiable"
        tab.close("cancelled")
    async with bench(tmp_path / "l2.db", None, Budget(daily=20)) as gate:
        tab = gate.open(PAID, PAID)
        one, other = tab.begin(PAID), tab.begin(PAID)
        other.sent = True
        for event in said(4):
            one.note(event)
        other.end("cancelled")
        tab.close()
        assert await gate.rows("SELECT outcome, cost FROM attempts ORDER BY seq") == [("ok", 4), ("cancelled", 0)]


async def test_targets_above_a_price_ceiling_are_left_out(tmp_path: Path) -> None:
    async with bench(tmp_path / "l.db", None, Budget(max_cost=50), Budget(max_cost=60)) as gate:
        assert gate.open(DEAR, PAID, UNKNOWN, FREE).offers == (PAID, FREE)
        with pytest.raises(LumenError) as caught:
            gate.open(DEAR, UNKNOWN)
        assert (caught.value.status, caught.value.code) == (400, "budget_unsatisfiable")
        assert "0.0001/1M" in caught.value.message
        assert "0.00005/1M" in caught.value.message
        # The ceiling of the whole server holds on every route.
        assert gate.open(DEAR, PAID, route="p/m").offers == (PAID,)


async def test_a_target_without_a_price_is_refused_only_where_money_is_limited(tmp_path: Path) -> None:
    async with bench(tmp_path / "l.db") as gate:
        await gate.serve(UNKNOWN)
    # Rows that cost nothing are written together, the last of them at the end.
    assert await gate.rows("SELECT cost, flags, output FROM attempts") == [(0, UNPRICED, 10)]
    async with bench(tmp_path / "l2.db", Limits(credit=5)) as gate:
        with pytest.raises(LumenError, match="known price") as caught:
            gate.open(UNKNOWN)
        assert caught.value.code == "budget_unsatisfiable"
        assert gate.open(UNKNOWN, FREE).offers == (FREE,)


async def test_an_unset_max_tokens_is_bounded_where_money_is_limited_and_only_there(tmp_path: Path) -> None:
    async with bench(tmp_path / "l.db", None, Budget(daily=10**6)) as gate:
        tab = gate.open(PAID, call=ask(None))
        line = tab.begin(PAID)
        assert isinstance(line, Line)
        assert line.call.request.max_tokens == 4096  # type: ignore[union-attr]
        tab.close("cancelled")
        for _ in range(30):
            await gate.serve(tokens=20, call=ask(None))
        tab = gate.open(PAID, call=ask(None, n=3))
        assert (tab.begin(PAID)).call.request.max_tokens == 256  # type: ignore[union-attr]
        assert await gate.rows("SELECT amount FROM holds") == [(3 * 256,)]
        tab.close("cancelled")
        own = gate.open(PAID, call=ask(None, max_completion_tokens=9))
        assert (own.begin(PAID)).call is own.call
        own.close("cancelled")
    async with bench(tmp_path / "l2.db") as gate:
        tab = gate.open(PAID, call=ask(None))
        assert (tab.begin(PAID)).call is tab.call
        tab.close("cancelled")


async def test_how_long_answers_are_is_known_after_a_restart(tmp_path: Path) -> None:
    async with bench(tmp_path / "l.db", start=(clock := Clock())) as gate:
        for _ in range(30):
            await gate.serve(tokens=400, call=ask(None))
    for configured_first in (True, False):
        billing = Billing(tmp_path / "l.db", wall=lambda: clock.wall, mono=lambda: clock.mono)
        config, ring = setup(route=Budget(daily=10**6))
        if configured_first:
            billing.configure(config, ring)
        await billing.start()
        billing.configure(config, ring)
        tab = billing.open(f"again_{configured_first}", ring.keys[0], "fast", ask(None), 100, [PAID])
        assert (tab.begin(PAID)).call.request.max_tokens == 431 * 5 // 4 + 1  # type: ignore[union-attr]
        tab.close("cancelled")
        await billing.stop()


async def test_the_last_of_a_budget_is_used_by_a_shorter_answer(tmp_path: Path) -> None:
    async with bench(tmp_path / "l.db", None, Budget(credit=1000), most=700) as gate:
        tab = gate.open(PAID, call=ask(None))
        assert (tab.begin(PAID)).worst == 700
        other = gate.open(PAID, call=ask(None))
        assert (other.begin(PAID)).call.request.max_tokens == 300  # type: ignore[union-attr]
        third = gate.open(PAID, call=ask(None))
        error = unpaid(third.begin)
        assert (error.code, error.headers) == ("insufficient_quota", {"x-should-retry": "false"})
        for one in (tab, other, third):
            one.close("cancelled")


async def test_a_target_that_bills_more_than_it_was_allowed_is_told_apart(tmp_path: Path) -> None:
    async with bench(tmp_path / "l.db", None, Budget(credit=100)) as gate:
        await gate.serve(tokens=150)
        assert await gate.rows("SELECT cost, flags FROM attempts") == [(150, BEYOND)]
        assert (await refusal(gate.serve())).code == "insufficient_quota"


async def test_rates_of_a_key(tmp_path: Path) -> None:
    async with bench(tmp_path / "l.db", Limits(rpm=2, concurrency=1)) as gate:
        tab = gate.open(FREE)
        with pytest.raises(LumenError, match="1 requests at once") as caught:
            gate.open(FREE)
        assert (caught.value.status, caught.value.code, caught.value.retry_after) == (429, "rate_limit_exceeded", 1.0)
        tab.close("cancelled")
        await gate.serve(FREE)
        with pytest.raises(LumenError, match="2 requests a minute") as caught:
            gate.open(FREE)
        assert caught.value.retry_after == 30.0
        gate.clock.tick(30)
        await gate.serve(FREE)
    async with bench(tmp_path / "l2.db", Limits(tpm=1000)) as gate:
        await gate.serve(FREE, call=ask(500))
        # 17 tokens were used, not the 525 that were likely.
        await gate.serve(FREE, call=ask(900))
