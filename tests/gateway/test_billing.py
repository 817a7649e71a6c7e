"""Money around a request, in a pipeline as small as it can be: open → begin → events → settle."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lumen.config.schema import Budget, Config, Model, Provider, Route, Server, Target
from lumen.core.errors import LumenError, UpstreamError
from lumen.core.money import MICRO, Price
from lumen.gateway.billing import Billing, needed
from lumen.gateway.tab import Line, Offer, Tab, bounded
from lumen.keys import Key, KeyRing, Limits, mint
from lumen.ledger.rows import BEYOND, ESTIMATED, UNPRICED
from lumen.ledger.store import LedgerError
from lumen.wire.answers import CompletionDetails, PromptDetails, Usage
from lumen.wire.call import Call, Event, chat_call, completion_call, embedding_call
from lumen.wire.parse import parse_chat, parse_completion, parse_embedding
from tests.ledger.ledgers import consistent, rows

pytestmark = pytest.mark.anyio

# A pico-dollar a token of output, so that a cost is a count of tokens.
PAID = Offer("p/m", "p", "m", Price(output=1))
DEAR = Offer("p/dear", "p", "dear", Price(output=100))
FREE = Offer("local", "local", "local", Price())
UNKNOWN = Offer("p/new", "p", "new", None)
SECOND = 1_000_000_000


@dataclass
class Clock:
    wall: int = 1_800_000_000 * SECOND
    mono: int = 5 * SECOND

    def tick(self, seconds: float) -> None:
        self.wall += int(seconds * SECOND)
        self.mono += int(seconds * SECOND)


@dataclass
class Bench:
    billing: Billing
    path: Path
    clock: Clock
    key: Key
    told: list[str | None] = field(default_factory=list)
    count: int = 0

    def open(self, *offers: Offer, route: str = "fast", call: Call | None = None, body: int = 100) -> Tab:
        self.count += 1
        return self.billing.open(f"req_{self.count}", self.key, route, call or ask(), body, offers)

    async def serve(self, offer: Offer = PAID, *, tokens: int = 10, call: Call | None = None) -> Tab:
        """A whole request that goes well."""
        tab = self.open(offer, call=call)
        try:
            line = await tab.begin(tab.offers[0])
            for event in said(tokens):
                line.note(event)
            await tab.settle()
        finally:
            tab.close("cancelled")
        return tab

    def rows(self, sql: str) -> list[Any]:
        return rows(self.path, sql)


def ask(max_tokens: int | None = 10, **more: Any) -> Call:
    body: dict[str, Any] = {"model": "fast", "messages": [{"role": "user", "content": "hi"}], "stream": True, **more}
    if max_tokens is not None:
        body["max_tokens"] = max_tokens
    return chat_call(parse_chat(msgspec.json.encode(body)))


def said(tokens: int, *, usage: bool = True, prompt: int = 7) -> Sequence[Event]:
    events = [Event(b'{"choices":[{"index":0,"delta":{"content":"word"}}]}', content=True) for _ in range(tokens)]
    told = Usage(prompt_tokens=prompt, completion_tokens=tokens, total_tokens=prompt + tokens)
    return [*events, Event(b"{}", finished=(0,), usage=told if usage else None)]


def setup(
    limits: Limits | None = None, route: Budget | None = None, box: Budget | None = None, most: int | None = None
) -> tuple[Config, KeyRing]:
    config = Config(
        server=Server(budget=box or Budget()),
        models={"local": Model("builtin:tiny")},
        providers={"p": Provider(base_url="http://127.0.0.1:1/v1")},
        routes={"fast": Route((Target("p/m"),), budget=route or Budget(), max_output=most)},
    )
    key, _ = mint("test", limits=limits)
    return config, KeyRing([key])


@asynccontextmanager
async def bench(path: Path, *args: Any, start: Clock | None = None, **options: Any) -> AsyncIterator[Bench]:
    config, ring = setup(*args, **options)
    clock, told = start or Clock(), list[str | None]()
    billing = Billing(path, wall=lambda: clock.wall, mono=lambda: clock.mono, told=told.append)
    await billing.start()
    billing.configure(config, ring)
    try:
        yield Bench(billing, path, clock, ring.keys[0], told)
    finally:
        await billing.stop()


async def refusal(work: Any) -> LumenError:
    with pytest.raises(LumenError) as caught:
        await work
    return caught.value


async def test_a_finished_request_is_in_the_ledger_before_the_client_is_told(tmp_path: Path) -> None:
    async with bench(tmp_path / "l.db") as gate:
        tab = gate.open(PAID)
        line = await tab.begin(PAID)
        assert gate.rows("SELECT request, amount FROM holds") == [("req_1", 10)]
        gate.clock.tick(0.25)
        for event in said(6):
            line.note(event)
        gate.clock.tick(0.5)
        await tab.settle()
        columns = (
            "request, seq, target, provider, model, route, operation, began_us, first_us, ended_us, input, output,"
        )
        assert gate.rows(f"SELECT {columns} cost, flags, outcome FROM attempts") == [
            ("req_1", 1, "p/m", "p", "m", "fast", "chat/completions", 0, 250_000, 750_000, 7, 6, 6, 0, "ok"),
        ]
        assert gate.rows("SELECT count(*) FROM holds") == [(0,)]
        assert gate.rows("SELECT key, booked FROM attempts") == [(gate.key.id, 1_800_000_000_000_000)]
    consistent(gate.path)


async def test_a_hundred_at_once_against_a_budget_for_ten(tmp_path: Path) -> None:
    async with bench(tmp_path / "l.db", route=Budget(daily=100)) as gate:
        done = await asyncio.gather(*(gate.serve(tokens=10) for _ in range(100)), return_exceptions=True)
        served = [one for one in done if isinstance(one, Tab)]
        codes = {(one.status, one.code) for one in done if isinstance(one, LumenError)}
        assert len(served) == 10
        assert codes == {(429, "insufficient_quota")}
        assert gate.rows("SELECT sum(cost) FROM attempts") == [(100,)]
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
    assert gate.rows("SELECT count(DISTINCT booked / 86400000000) FROM attempts") == [(2,)]


async def test_every_try_counts_against_the_same_limit(tmp_path: Path) -> None:
    async with bench(tmp_path / "l.db", None, Budget(max_request=15)) as gate:
        tab = gate.open(PAID, PAID)
        first = await tab.begin(PAID)
        for event in said(6)[:6]:
            first.note(event)
        first.end("upstream_disconnected")
        error = await refusal(tab.begin(PAID))
        assert error.code == "budget_unsatisfiable"
        tab.close(error.code)
    # An estimate of what was delivered: as many tokens as there were events.
    assert gate.rows("SELECT seq, output, cost, flags, outcome FROM attempts") == [
        (1, 6, 6, ESTIMATED, "upstream_disconnected")
    ]


async def test_a_failover_after_a_refusal_needs_no_more_than_one_hold(tmp_path: Path) -> None:
    async with bench(tmp_path / "l.db", None, Budget(max_request=10)) as gate:
        tab = gate.open(PAID, PAID)
        (await tab.begin(PAID)).end("upstream_error")
        line = await tab.begin(PAID)
        line.resumed(3, "prefill")
        for event in said(10):
            line.note(event)
        await tab.settle()
        assert gate.rows("SELECT seq, input, cost, outcome, resumed_at, fidelity FROM attempts") == [
            (1, None, 0, "upstream_error", None, None), (2, 7, 10, "ok", 3, "prefill"),
        ]  # fmt: skip


async def test_a_hedge_holds_for_both(tmp_path: Path) -> None:
    async with bench(tmp_path / "l.db", None, Budget(daily=19)) as gate:
        tab = gate.open(PAID, PAID)
        await tab.begin(PAID)
        assert (await refusal(tab.begin(PAID))).code == "budget_unsatisfiable"
        tab.close("cancelled")
    async with bench(tmp_path / "l2.db", None, Budget(daily=20)) as gate:
        tab = gate.open(PAID, PAID)
        one, other = await tab.begin(PAID), await tab.begin(PAID)
        other.sent = True
        for event in said(4):
            one.note(event)
        other.end("cancelled")
        await tab.settle()
        assert gate.rows("SELECT outcome, cost FROM attempts ORDER BY seq") == [("ok", 4), ("cancelled", 0)]


async def test_tokens_carried_over_are_billed_once(tmp_path: Path) -> None:
    async with bench(tmp_path / "l.db") as gate:
        tab = gate.open(PAID, PAID)
        first = await tab.begin(PAID)
        for event in said(4)[:4]:
            first.note(event)
        first.end("upstream_disconnected")
        second = await tab.begin(PAID, carried=4)
        second.note(said(10)[-1])
        await tab.settle()
        assert gate.rows("SELECT cost FROM attempts ORDER BY seq") == [(4,), (6,)]


async def test_a_client_that_goes_away_is_charged_what_the_target_did(tmp_path: Path) -> None:
    priced = Offer("p/in", "p", "in", Price(input=1, output=1))
    async with bench(tmp_path / "l.db") as gate:
        for sent in (False, True):
            tab = gate.open(priced, body=400)
            (await tab.begin(priced)).sent = sent
            tab.close("cancelled")
        tab = gate.open(priced, body=400)
        line = await tab.begin(priced)
        for event in said(5)[:5]:
            line.note(event)
        tab.close("cancelled")
        silent = gate.open(priced, body=400)
        (await silent.begin(priced)).sent = True
        silent.close("upstream_timeout")
        await gate.serve()
        assert gate.rows("SELECT input, output, cost, flags FROM attempts WHERE target = 'p/in' ORDER BY request") == [
            (None, None, 0, 0), (100, 0, 100, ESTIMATED), (100, 5, 105, ESTIMATED), (None, None, 0, 0),
        ]  # fmt: skip


async def test_cancelled_in_the_middle_of_holding_or_settling_nothing_stays_held(tmp_path: Path) -> None:
    async with bench(tmp_path / "l.db", None, Budget(daily=10)) as gate:
        for steps in range(12):
            task = asyncio.create_task(gate.serve(tokens=0))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        # The whole budget is free again.
        await gate.serve(tokens=10)
        assert gate.rows("SELECT count(*) FROM holds") == [(0,)]
    assert gate.rows("SELECT sum(cost) FROM attempts") == [(10,)]
    consistent(gate.path)


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
        assert gate.rows("SELECT cost, flags, output FROM attempts") == [(0, UNPRICED, 10)]
    async with bench(tmp_path / "l2.db", Limits(credit=5)) as gate:
        with pytest.raises(LumenError, match="known price") as caught:
            gate.open(UNKNOWN)
        assert caught.value.code == "budget_unsatisfiable"
        assert gate.open(UNKNOWN, FREE).offers == (FREE,)


async def test_an_unset_max_tokens_is_bounded_where_money_is_limited_and_only_there(tmp_path: Path) -> None:
    async with bench(tmp_path / "l.db", None, Budget(daily=10**6)) as gate:
        tab = gate.open(PAID, call=ask(None))
        line = await tab.begin(PAID)
        assert isinstance(line, Line)
        assert line.call.request.max_tokens == 4096  # type: ignore[union-attr]
        tab.close("cancelled")
        for _ in range(30):
            await gate.serve(tokens=20, call=ask(None))
        tab = gate.open(PAID, call=ask(None, n=3))
        assert (await tab.begin(PAID)).call.request.max_tokens == 256  # type: ignore[union-attr]
        assert gate.rows("SELECT amount FROM holds") == [(3 * 256,)]
        tab.close("cancelled")
        own = gate.open(PAID, call=ask(None, max_completion_tokens=9))
        assert (await own.begin(PAID)).call is own.call
        own.close("cancelled")
    async with bench(tmp_path / "l2.db") as gate:
        tab = gate.open(PAID, call=ask(None))
        assert (await tab.begin(PAID)).call is tab.call
        tab.close("cancelled")


async def test_how_long_answers_are_is_known_after_a_restart(tmp_path: Path) -> None:
    async with bench(tmp_path / "l.db") as gate:
        for _ in range(30):
            await gate.serve(tokens=400, call=ask(None))
    for configured_first in (True, False):
        billing = Billing(tmp_path / "l.db")
        config, ring = setup(route=Budget(daily=10**6))
        if configured_first:
            billing.configure(config, ring)
        await billing.start()
        billing.configure(config, ring)
        tab = billing.open(f"again_{configured_first}", ring.keys[0], "fast", ask(None), 100, [PAID])
        assert (await tab.begin(PAID)).call.request.max_tokens == 431 * 5 // 4 + 1  # type: ignore[union-attr]
        tab.close("cancelled")
        await billing.stop()


async def test_the_last_of_a_budget_is_used_by_a_shorter_answer(tmp_path: Path) -> None:
    async with bench(tmp_path / "l.db", None, Budget(credit=1000), most=700) as gate:
        tab = gate.open(PAID, call=ask(None))
        assert (await tab.begin(PAID)).worst == 700
        other = gate.open(PAID, call=ask(None))
        assert (await other.begin(PAID)).call.request.max_tokens == 300  # type: ignore[union-attr]
        third = gate.open(PAID, call=ask(None))
        error = await refusal(third.begin(PAID))
        assert (error.code, error.headers) == ("insufficient_quota", {"x-should-retry": "true"})
        for one in (tab, other, third):
            one.close("cancelled")


async def test_a_target_that_bills_more_than_it_was_allowed_is_told_apart(tmp_path: Path) -> None:
    async with bench(tmp_path / "l.db", None, Budget(credit=100)) as gate:
        await gate.serve(tokens=150)
        assert gate.rows("SELECT cost, flags FROM attempts") == [(150, BEYOND)]
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


async def test_a_locked_ledger_refuses_what_costs_and_serves_what_does_not(tmp_path: Path) -> None:
    async with bench(tmp_path / "l.db", None, Budget(daily=1000)) as gate:
        running = gate.open(PAID)
        line = await running.begin(PAID)
        gate.billing._ledger._connection.execute("PRAGMA busy_timeout = 20")  # type: ignore[union-attr]
        other = sqlite3.connect(gate.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        error = await refusal(gate.serve())
        assert isinstance(error, LedgerError)
        assert (error.status, error.code) == (503, "ledger_unavailable")
        await gate.serve(FREE)
        for event in said(8):
            line.note(event)
        await running.settle()
        assert gate.billing.status()["ledger"]["why"] == "another program holds its lock"
        # A paid request that falls back to a free target is served.
        tab = gate.open(PAID, FREE)
        await refusal(tab.begin(PAID))
        await tab.begin(FREE)
        await tab.settle()
        other.execute("ROLLBACK")
        other.close()
        async with asyncio.timeout(5):
            while not gate.billing.healthy:
                await asyncio.sleep(0.01)
        await gate.serve()
        assert gate.told == ["another program holds its lock", None]
        held = {entry["limit"]: entry["held"] for entry in gate.billing.status()["budgets"]}
        assert held == {"day": 0}
    assert gate.rows("SELECT request, cost FROM attempts WHERE cost > 0 ORDER BY 1") == [("req_1", 8), ("req_5", 10)]
    assert gate.rows("SELECT count(*) FROM attempts") == [(4,)]
    consistent(gate.path)


async def test_a_ledger_that_cannot_be_opened_yet_is_opened_later(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "l.db"
    (tmp_path / "deep").write_text("a file where the folder should be")
    async with bench(path, None, Budget(daily=100)) as gate:
        assert gate.told == ["File exists"]
        assert isinstance(await refusal(gate.serve()), LedgerError)
        await gate.serve(FREE)
        (tmp_path / "deep").unlink()
        async with asyncio.timeout(10):
            while not gate.billing.healthy:
                await asyncio.sleep(0.02)
        await gate.serve()
    assert gate.rows("SELECT target, cost FROM attempts ORDER BY cost") == [("local", 0), ("p/m", 10)]


async def test_a_crash_charges_what_the_last_checkpoint_knew(tmp_path: Path) -> None:
    async with bench(tmp_path / "l.db", None, Budget(daily=1000)) as gate:
        tab = gate.open(PAID, call=ask(500))
        line = await tab.begin(PAID)
        for event in said(42)[:42]:
            line.note(event)
        gate.billing._checkpoint()
        await gate.serve(FREE)
        assert gate.rows("SELECT amount, known FROM holds") == [(500, 42)]
        # The process ends without settling.
        gate.billing._held.clear()
        tab.closed = True
    async with bench(tmp_path / "l.db", None, Budget(daily=541)) as gate:
        gate.count = 10
        assert gate.billing.lost == 1
        assert (await refusal(gate.serve(call=ask(500)))).code == "insufficient_quota"
        await gate.serve(call=ask(499), tokens=499)
    assert gate.rows("SELECT cost, outcome FROM attempts WHERE cost > 0 ORDER BY cost") == [(42, "lost"), (499, "ok")]


def usage(prompt: int, completion: int | None, **more: Any) -> Usage:
    return Usage(prompt, completion, prompt + (completion or 0), **more)


@pytest.mark.parametrize(
    ("told", "counts", "flags"),
    [
        (usage(7, 3), (7, 3, None, None), 0),
        (usage(7, 0), (7, 0, None, None), 0),
        (usage(7, None), (7, 2, None, None), ESTIMATED),
        (usage(0, 0), (25, 2, None, None), ESTIMATED),
        (None, (25, 2, None, None), ESTIMATED),
        (usage(7, 3, prompt_tokens_details=PromptDetails(5), completion_tokens_details=CompletionDetails(0)),
         (7, 3, 5, 0), 0),
    ],
)  # fmt: skip
async def test_counts_that_are_absent_are_estimated(
    tmp_path: Path, told: Usage | None, counts: tuple[int | None, ...], flags: int
) -> None:
    async with bench(tmp_path / "l.db") as gate:
        tab = gate.open(PAID)
        line = await tab.begin(PAID)
        for event in said(2, usage=False):
            line.note(event)
        if told is not None:
            line.note(Event(b"", usage=told))
        await tab.settle()
        (found,) = gate.rows("SELECT input, output, cached, reasoning, flags FROM attempts")
        assert found == (*counts, flags)


async def test_an_error_of_an_upstream_closes_the_tab_once(tmp_path: Path) -> None:
    async with bench(tmp_path / "l.db", Limits(concurrency=1)) as gate:
        tab = gate.open(PAID)
        with pytest.raises(UpstreamError):
            try:
                await tab.begin(PAID)
                raise UpstreamError("broken", phase="headers")
            except LumenError as error:
                tab.close(error.code or error.type)
                raise
            finally:
                tab.close("cancelled")
        tab.close("again")
        await gate.serve()
        assert gate.rows("SELECT outcome FROM attempts ORDER BY id") == [("upstream_error",), ("ok",)]


def test_what_a_request_needs() -> None:
    assert needed(ask(9), 120).max_tokens == 9
    image = "data:image/png;base64," + "A" * 1000
    content = [{"type": "text", "text": "what?"}, {"type": "image_url", "image_url": {"url": image}}]
    call = ask(None, messages=[{"role": "user", "content": content}], n=2)
    need = needed(call, 1200)
    assert (need.input_bytes, need.answers, need.max_tokens) == (1200 - len(image), 2, None)
    assert need.input_bound == 1200 - len(image) + 256 + 50_000
    sound = [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}]
    assert needed(ask(messages=[{"role": "user", "content": sound}]), 100).input_bound > 1_000_000
    texts = embedding_call(parse_embedding(b'{"model":"m","input":["a","b"]}'))
    assert (needed(texts, 30).answers, needed(texts, 30).input_bound) == (0, 286)
    assert bounded(texts, 5) is texts
    many = completion_call(parse_completion(b'{"model":"m","prompt":["a","b"],"n":2}'))
    assert needed(many, 40).answers == 4
    assert bounded(many, 5).request.max_tokens == 5  # type: ignore[union-attr]


async def test_a_price_by_the_second_is_held_and_billed(tmp_path: Path) -> None:
    gpu = Offer("local", "local", "local", Price(per_second=MICRO), most_micros=900_000_000)
    async with bench(tmp_path / "l.db", None, Budget(daily=1000 * MICRO)) as gate:
        tab = gate.open(gpu)
        line = await tab.begin(gpu)
        assert gate.rows("SELECT amount FROM holds") == [(900 * MICRO,)]
        for event in said(3):
            line.note(event)
        gate.clock.tick(2.5)
        await tab.settle()
        assert gate.rows("SELECT cost FROM attempts") == [(2_500_000,)]


async def test_an_embedding_costs_its_input(tmp_path: Path) -> None:
    priced = Offer("p/e", "p", "e", Price(input=1))
    call = embedding_call(parse_embedding(b'{"model":"m","input":"a"}'))
    async with bench(tmp_path / "l.db", None, Budget(daily=1000)) as gate:
        tab = gate.open(priced, call=call, body=25)
        line = await tab.begin(priced)
        assert line.worst == 25 + 256
        line.note(Event(b"{}", content=True, usage=Usage(prompt_tokens=3, completion_tokens=0, total_tokens=3)))
        await tab.settle()
        assert gate.rows("SELECT input, output, cost, flags FROM attempts") == [(3, 0, 3, 0)]
