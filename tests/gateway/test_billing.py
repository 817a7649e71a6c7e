"""Money around a request: what is held, what is booked, and what happens when something breaks."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from lumen.config.schema import Budget
from lumen.core.budget import BOX, Scope
from lumen.core.errors import LumenError, UpstreamError
from lumen.core.money import MICRO, Price
from lumen.gateway.billing import Billing
from lumen.gateway.need import needed
from lumen.gateway.tab import Offer, bounded
from lumen.keys import Limits
from lumen.ledger.rows import ESTIMATED
from lumen.ledger.store import LedgerError
from lumen.wire.answers import CompletionDetails, PromptDetails, Usage
from lumen.wire.call import Event, completion_call, embedding_call
from lumen.wire.parse import parse_completion, parse_embedding
from tests.gateway.billed import FREE, PAID, ask, bench, refusal, said, unpaid
from tests.ledger.ledgers import consistent

pytestmark = pytest.mark.anyio


async def test_a_finished_request_is_in_the_ledger_before_the_client_is_told(tmp_path: Path) -> None:
    async with bench(tmp_path / "l.db") as gate:
        tab = gate.open(PAID)
        line = tab.begin(PAID)
        assert await gate.rows("SELECT request, amount FROM holds") == [("req_1", 10)]
        gate.clock.tick(0.25)
        for event in said(6):
            line.note(event)
        gate.clock.tick(0.5)
        tab.close()
        columns = (
            "request, seq, target, provider, model, route, operation, began_us, first_us, ended_us, input, output,"
        )
        assert await gate.rows(f"SELECT {columns} cost, flags, outcome FROM attempts") == [
            ("req_1", 1, "p/m", "p", "m", "fast", "chat/completions", 0, 250_000, 750_000, 7, 6, 6, 0, "ok"),
        ]
        assert await gate.rows("SELECT count(*) FROM holds") == [(0,)]
        assert await gate.rows("SELECT key, booked FROM attempts") == [(gate.key.id, 1_800_000_000_000_000)]
    consistent(gate.path)


async def test_what_was_waited_for_is_written_with_each_try(tmp_path: Path) -> None:
    async with bench(tmp_path / "l.db") as gate:
        tab = gate.open(PAID, PAID)
        first = tab.begin(PAID)
        first.end("upstream_disconnected")
        second = tab.begin(PAID)
        gate.clock.tick(2.0)
        second.waited(wake=1.5, queue=0.25, target=0.125)
        gate.clock.tick(0.5)
        for event in said(3):
            second.note(event)
        tab.close()
        parts = await gate.rows("SELECT wake_us, queue_us, prefill_us, first_us FROM attempts ORDER BY seq")
        assert parts == [(None, None, None, None), (1_500_000, 375_000, 500_000, 2_500_000)]


async def test_tokens_carried_over_are_billed_once(tmp_path: Path) -> None:
    async with bench(tmp_path / "l.db") as gate:
        tab = gate.open(PAID, PAID)
        first = tab.begin(PAID)
        for event in said(4)[:4]:
            first.note(event)
        first.end("upstream_disconnected")
        second = tab.begin(PAID, carried=4)
        second.note(said(10)[-1])
        tab.close()
        assert await gate.rows("SELECT cost FROM attempts ORDER BY seq") == [(4,), (6,)]


async def test_a_client_that_goes_away_is_charged_what_the_target_did(tmp_path: Path) -> None:
    priced = Offer("p/in", "p", "in", Price(input=1, output=1))
    async with bench(tmp_path / "l.db") as gate:
        for sent in (False, True):
            tab = gate.open(priced, body=400)
            (tab.begin(priced)).sent = sent
            tab.close("cancelled")
        tab = gate.open(priced, body=400)
        line = tab.begin(priced)
        for event in said(5)[:5]:
            line.note(event)
        tab.close("cancelled")
        silent = gate.open(priced, body=400)
        (silent.begin(priced)).sent = True
        silent.close("upstream_timeout")
        await gate.serve()
        told = "SELECT input, output, cost, flags FROM attempts WHERE target = 'p/in' ORDER BY request"
        assert await gate.rows(told) == [
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
        assert await gate.rows("SELECT count(*) FROM holds") == [(0,)]
    assert await gate.rows("SELECT sum(cost) FROM attempts") == [(10,)]
    consistent(gate.path)


async def test_a_locked_ledger_refuses_what_costs_and_serves_what_does_not(tmp_path: Path) -> None:
    async with bench(tmp_path / "l.db", None, Budget(daily=1000)) as gate:
        running = gate.open(PAID)
        line = running.begin(PAID)
        gate.billing._ledger._connection.execute("PRAGMA busy_timeout = 20")  # type: ignore[union-attr]
        other = sqlite3.connect(gate.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        # What cannot be committed yet is written down, until it is known that the file is locked.
        await gate.serve()
        async with asyncio.timeout(100):
            while gate.billing.healthy:
                await asyncio.sleep(0.01)
        error = await refusal(gate.serve())
        assert isinstance(error, LedgerError)
        assert (error.status, error.code) == (503, "ledger_unavailable")
        await gate.serve(FREE)
        for event in said(8):
            line.note(event)
        running.close()
        assert gate.billing.status()["ledger"]["why"] == "another program holds its lock"
        # A paid request that falls back to a free target is served.
        tab = gate.open(PAID, FREE)
        unpaid(tab.begin)
        tab.begin(FREE)
        tab.close()
        other.execute("ROLLBACK")
        other.close()
        async with asyncio.timeout(100):
            while not gate.billing.healthy:
                await asyncio.sleep(0.01)
        await gate.serve()
        assert gate.told == ["another program holds its lock", None]
        held = {entry["limit"]: entry["held"] for entry in gate.billing.status()["budgets"]}
        assert held == {"day": 0}
    assert await gate.rows("SELECT request, cost FROM attempts WHERE cost > 0 ORDER BY 1") == [
        ("req_1", 8),
        ("req_2", 10),
        ("req_6", 10),
    ]
    assert await gate.rows("SELECT count(*) FROM attempts") == [(5,)]
    consistent(gate.path)


async def test_a_ledger_that_cannot_be_opened_yet_is_opened_later(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "l.db"
    (tmp_path / "deep").write_text("a file where the folder should be")
    async with bench(path, None, Budget(daily=100)) as gate:
        assert gate.told == ["File exists"]
        assert isinstance(await refusal(gate.serve()), LedgerError)
        await gate.serve(FREE)
        (tmp_path / "deep").unlink()
        async with asyncio.timeout(100):
            while not gate.billing.healthy:
                await asyncio.sleep(0.02)
        await gate.serve()
    assert await gate.rows("SELECT target, cost FROM attempts ORDER BY cost") == [("local", 0), ("p/m", 10)]


async def test_a_crash_charges_what_the_last_checkpoint_knew(tmp_path: Path) -> None:
    async with bench(tmp_path / "l.db", None, Budget(daily=1000)) as gate:
        tab = gate.open(PAID, call=ask(500))
        line = tab.begin(PAID)
        for event in said(42)[:42]:
            line.note(event)
        gate.billing._checkpoint()
        async with asyncio.timeout(100):
            while await gate.rows("SELECT amount, known FROM holds") != [(500, 42)]:
                await asyncio.sleep(0.01)
        # The process ends without settling.
        gate.billing._held.clear()
        tab.closed = True
    async with bench(tmp_path / "l.db", None, Budget(daily=541)) as gate:
        gate.count = 10
        assert gate.billing.lost == 1
        assert (await refusal(gate.serve(call=ask(500)))).code == "insufficient_quota"
        await gate.serve(call=ask(499), tokens=499)
    assert await gate.rows("SELECT cost, outcome FROM attempts WHERE cost > 0 ORDER BY cost") == [
        (42, "lost"),
        (499, "ok"),
    ]


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
        line = tab.begin(PAID)
        for event in said(2, usage=False):
            line.note(event)
        if told is not None:
            line.note(Event(b"", usage=told))
        tab.close()
        (found,) = await gate.rows("SELECT input, output, cached, reasoning, flags FROM attempts")
        assert found == (*counts, flags)


@pytest.mark.parametrize(
    ("pieces", "characters", "ids", "tokens"), [(2, 800, 0, 400), (50, 6, 0, 50), (3, 100, 0, 75), (2, 800, 5, 10)]
)
async def test_an_answer_in_few_large_pieces_is_estimated_by_its_text(
    tmp_path: Path, pieces: int, characters: int, ids: int, tokens: int
) -> None:
    """Pieces of one size hide how much of each is text; an answer that breaks off costs what was said all the same."""
    text = "x" * characters
    data = b'{"choices":[{"index":0,"delta":{"content":"' + text.encode() + b'"}}]}'
    async with bench(tmp_path / "l.db") as gate:
        tab = gate.open(PAID)
        line = tab.begin(PAID)
        for _ in range(pieces):
            line.note(Event(data, content=True, text=text, token_ids=[1] * ids))
        tab.close()
        assert await gate.rows(f"SELECT output, flags & {ESTIMATED} FROM attempts") == [(tokens, ESTIMATED)]


async def test_an_error_of_an_upstream_closes_the_tab_once(tmp_path: Path) -> None:
    async with bench(tmp_path / "l.db", Limits(concurrency=1)) as gate:
        tab = gate.open(PAID)
        with pytest.raises(UpstreamError):
            try:
                tab.begin(PAID)
                raise UpstreamError("broken", phase="headers")
            except LumenError as error:
                tab.close(error.code or error.type)
                raise
            finally:
                tab.close("cancelled")
        tab.close("again")
        await gate.serve()
        assert await gate.rows("SELECT outcome FROM attempts ORDER BY id") == [("upstream_error",), ("ok",)]


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
        line = tab.begin(gpu)
        assert await gate.rows("SELECT amount FROM holds") == [(900 * MICRO,)]
        for event in said(3):
            line.note(event)
        gate.clock.tick(2.5)
        tab.close()
        assert await gate.rows("SELECT cost FROM attempts") == [(2_500_000,)]


async def test_an_embedding_costs_its_input(tmp_path: Path) -> None:
    priced = Offer("p/e", "p", "e", Price(input=1))
    call = embedding_call(parse_embedding(b'{"model":"m","input":"a"}'))
    async with bench(tmp_path / "l.db", None, Budget(daily=1000)) as gate:
        tab = gate.open(priced, call=call, body=25)
        line = tab.begin(priced)
        assert line.worst == 25 + 256
        line.note(Event(b"{}", content=True, usage=Usage(prompt_tokens=3, completion_tokens=0, total_tokens=3)))
        tab.close()
        assert await gate.rows("SELECT input, output, cost, flags FROM attempts") == [(3, 0, 3, 0)]


async def test_an_input_that_one_target_counted_is_the_estimate_for_another(tmp_path: Path) -> None:
    priced = Offer("p/in", "p", "in", Price(input=1))
    async with bench(tmp_path / "l.db") as gate:
        tab = gate.open(priced, body=400)
        for extra in (0, 40):
            line = tab.begin(priced, extra_bytes=extra)
            line.note(said(1)[0])
            line.end("upstream_disconnected")
        line = tab.begin(priced)
        line.note(said(1)[-1])
        tab.close()
        # What was sent more of is not what was counted: (400 + 40) / 4.
        assert await gate.rows("SELECT input, cost, flags FROM attempts ORDER BY seq") == [
            (7, 7, ESTIMATED), (110, 110, ESTIMATED), (7, 7, 0),
        ]  # fmt: skip


async def test_memory_and_ledger_agree_whatever_was_cancelled(tmp_path: Path) -> None:
    draw = random.Random(3)
    offers = (PAID, FREE, Offer("p/in", "p", "in", Price(input=3, output=5, per_request=7)))
    async with bench(tmp_path / "l.db", Limits(credit=10**6, concurrency=40), Budget(daily=10**6, credit=5000)) as gate:

        async def one(number: int) -> None:
            tab = gate.open(*offers, call=ask(draw.choice([None, 20])))
            try:
                for _ in range(draw.randrange(1, 4)):
                    line = tab.begin(draw.choice(tab.offers))
                    line.sent = True
                    for event in said(draw.randrange(30), usage=draw.random() < 0.7):
                        line.note(event)
                        if draw.random() < 0.1:
                            await asyncio.sleep(0)
                    if draw.random() < 0.5:
                        line.end("upstream_disconnected")
                tab.close()
            finally:
                tab.close("cancelled")

        for wave in range(30):
            tasks = [asyncio.create_task(one(number)) for number in range(20)]
            for _ in range(draw.randrange(12)):
                await asyncio.sleep(0)
            for task in draw.sample(tasks, wave % 20):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        counters = [counter for account in gate.billing._accounts.values() for counter in account.current(0)]
        assert {counter.held for counter in counters} == {0}
        spent = {account.scope: account.current(0)[3].spent for account in gate.billing._accounts.values()}
        await gate.serve(FREE)
        assert await gate.rows("SELECT count(*) FROM holds") == [(0,)]
        ((booked,),) = await gate.rows("SELECT sum(cost) FROM attempts")
        assert booked > 0
        assert {spent[scope] for scope in (BOX, Scope("key", gate.key.id), Scope("route", "fast"))} == {booked}
    again = Billing(gate.path)
    await again.start()
    assert {account.scope: account.current(0)[3].spent for account in again._accounts.values()} == {
        scope: amount for scope, amount in spent.items() if amount
    }
    await again.stop()
    consistent(gate.path)
