"""Money through real processes: what an emulated provider served, what clients saw, and what the ledger says.

The default run is short; `LUMEN_FULL=1` takes 5,000 requests and 2,000 aborted streams.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from tests.e2e.conftest import Box, until
from tests.e2e.emulated import Emulated, emulated

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e-money"), pytest.mark.timeout(1200)]
FULL = bool(os.environ.get("LUMEN_FULL"))
REQUESTS, KILLS = (5000, 8) if FULL else (600, 3)
ABORTED = 2000 if FULL else 300
_AT_ONCE = 24
# Pico-dollars a token of the provider `emu`: a dollar a million in, two out.
INPUT, OUTPUT = 1_000_000, 2_000_000
PROMPT = 7
CONFIG = """
providers:
  emu:
    base_url: http://127.0.0.1:PORT/v1
    dialect: openai
    models: {"*": {price: {input: 1, output: 2}}, "*prefill*": {capabilities: {prefill: prefix}}}
  dear:
    base_url: http://127.0.0.1:PORT/v1
    dialect: openai
    models: {"*": {price: {input: 0, output: 1000}}}
routes:
  mended: {policy: ordered, targets: [emu/cut-6, emu/prefill-words-9]}
  plain: {targets: [emu/words-5]}
"""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Emulated]:
    with emulated(tmp_path / "box", CONFIG) as made:
        yield made


@dataclass
class Told:
    """What a client got. `ended`: it saw the answer's end. `words`: of the answer."""

    request: str
    status: int
    ended: bool
    words: int


async def _ask(
    session: aiohttp.ClientSession, box: Box, url: str, body: dict[str, Any], leave: int | None
) -> Told | None:
    """One request; `leave`: go away behind so many events. `None`: the gateway was killed before its headers."""
    headers = {"Authorization": f"Bearer {box.key}"}
    body = {**body, "messages": [{"role": "user", "content": "go"}]}
    raw = b""
    try:
        async with session.post(f"{url}/chat/completions", json=body, headers=headers) as answer:
            told = Told(answer.headers.get("x-request-id", ""), answer.status, False, 0)
            try:
                async for data in answer.content.iter_any():
                    raw += data
                    if leave is not None and raw.count(b"\n\n") >= leave:
                        answer.close()
                        break
            except aiohttp.ClientError:
                return told
    except aiohttp.ClientError:
        return None
    told.words = len(re.findall(rb"word\d", raw))
    told.ended = answer.status == 200 and (
        raw.endswith(b"data: [DONE]\n\n") if body.get("stream") else raw.endswith(b"}")
    )
    return told


def _mix(draw: random.Random, number: int) -> tuple[dict[str, Any], int | None]:
    """What a client asks, and behind how many events it leaves."""
    kind = draw.random()
    if kind < 0.35:
        return {"model": f"emu/words-{draw.randrange(1, 12)}-0-0-{number}", "stream": True}, None
    if kind < 0.55:
        return {"model": f"emu/words-{draw.randrange(1, 12)}-0-0-{number}"}, None
    if kind < 0.75:
        return {"model": f"emu/slow-12-20-0-{number}", "stream": True}, draw.randrange(2, 8)
    if kind < 0.9:
        return {"model": "mended", "stream": True}, None
    return {"model": f"emu/flap-1-1-5-{number}", "stream": draw.random() < 0.5}, None


def test_the_ledger_is_what_was_served_whatever_is_killed(bench: Emulated) -> None:
    draw = random.Random(11)
    seen: list[Told | None] = []

    async def round_of(first: int, count: int, kill: bool) -> None:
        url, pid = bench.box.url, bench.box.status()["pid"]
        gate = asyncio.Semaphore(_AT_ONCE)
        at = first + draw.randrange(count // 2, count)

        async def one(session: aiohttp.ClientSession, number: int) -> None:
            async with gate:
                if kill and number == at:
                    os.kill(pid, signal.SIGKILL)
                body, leave = _mix(draw, number)
                seen.append(await _ask(session, bench.box, url, body, leave))

        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            await asyncio.gather(*(one(session, number) for number in range(first, first + count)))

    each = REQUESTS // (KILLS + 1)
    for turn in range(KILLS + 1):
        asyncio.run(round_of(turn * each, each, kill=turn < KILLS))
        if turn < KILLS:
            bench.box.up()
    until(lambda: bench.box.status()["requests"]["in_flight"] == 0, "every request to be over")
    until(lambda: not bench.rows("SELECT 1 FROM holds"), "every hold to be settled")
    bench.box.lumen("down")
    _balance(bench, seen)


def _balance(bench: Emulated, seen: list[Told | None]) -> None:
    """What clients saw the end of is booked once and exactly; all in all no more than was served, and the bound."""
    what = "SELECT request, outcome, input, output, cost, fidelity FROM attempts ORDER BY request, seq"
    booked: dict[str, list[tuple[Any, ...]]] = {}
    for request, *rest in bench.rows(what):
        booked.setdefault(request, []).append(tuple(rest))
    ended = [told for told in seen if told is not None and told.ended]
    assert len(ended) > REQUESTS // 4
    for told in ended:
        rows = booked[told.request]
        finals = [row for row in rows if row[0] == "ok"]
        assert len(finals) == 1, rows
        _, counted_in, counted_out, cost, _ = finals[0]
        assert cost == counted_in * INPUT + counted_out * OUTPUT
        assert counted_in == PROMPT, rows
        # Every word that the client has was served by one of its tries.
        assert sum(row[2] or 0 for row in rows) == told.words, rows
    served = bench.served()
    truth = sum(one["prompt_tokens"] * INPUT + one["completion_tokens"] * OUTPUT for one in served)
    ledger = bench.rows("SELECT COALESCE(SUM(cost), 0) FROM attempts")[0][0]
    # Where a target broke off before it told its counts, the input is estimated: a token for four bytes of a request.
    estimated = bench.rows("SELECT COUNT(*) FROM attempts WHERE flags & 1 AND cost > 0")[0][0]
    bound = estimated * 100 * INPUT
    tally = Counter(told.status if told is not None else 0 for told in seen)
    sys.stdout.write(
        f"{len(seen)} requests {dict(tally)}, {len(ended)} ended; ledger {ledger / 1e12:.6f} usd, "
        f"served {truth / 1e12:.6f} usd, {estimated} rows estimated (at most {bound / 1e12:.6f} usd too much)\n"
    )
    assert ledger <= truth + bound
    assert bench.rows("SELECT COUNT(*) FROM holds") == [(0,)]
    assert bench.rows("SELECT COUNT(*) - COUNT(DISTINCT request || ' ' || seq) FROM attempts") == [(0,)]


def test_a_budget_for_ten_admits_ten_and_never_more(bench: Emulated) -> None:
    # Five tokens of a tenth of a cent: the worst case is what it costs.
    keys = [
        json.loads(bench.box.lumen("key", "add", name, "--credit", "0.05usd", "--json").stdout)["key"]
        for name in ("crowd", "queue")
    ]
    url = bench.box.url

    async def spend(key: str, count: int, at_once: int) -> list[tuple[int, str | None, str | None]]:
        gate = asyncio.Semaphore(at_once)

        async def one(session: aiohttp.ClientSession) -> tuple[int, str | None, str | None]:
            body = {"model": "dear/slow-5-20", "max_tokens": 5, "messages": [{"role": "user", "content": "go"}]}
            headers = {"Authorization": f"Bearer {key}"}
            async with gate, session.post(f"{url}/chat/completions", json=body, headers=headers) as answer:
                code = ((await answer.json()).get("error") or {}).get("code")
                return answer.status, code, answer.headers.get("x-should-retry")

        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            return list(await asyncio.gather(*(one(session) for _ in range(count))))

    crowd = asyncio.run(spend(keys[0], 100, 100))
    assert Counter(crowd) == {(200, None, None): 10, (429, "insufficient_quota", "false"): 90}
    queue = asyncio.run(spend(keys[1], 11, 1))
    assert queue == [(200, None, None)] * 10 + [(429, "insufficient_quota", "false")]
    assert sum(one["completion_tokens"] for one in bench.served()) == 100


def test_aborted_streams_leave_nothing_behind(bench: Emulated) -> None:
    url = bench.box.url
    gateway = psutil.Process(bench.box.status()["pid"])

    async def abort(count: int) -> None:
        gate = asyncio.Semaphore(50)

        async def one(session: aiohttp.ClientSession) -> None:
            async with gate:
                told = await _ask(session, bench.box, url, {"model": "emu/slow-400-20", "stream": True}, 3)
                assert told is not None and told.status == 200 and not told.ended

        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            await asyncio.gather(*(one(session) for _ in range(count)))

    def rest() -> tuple[int, int]:
        until(lambda: bench.box.status()["requests"]["in_flight"] == 0, "every request to be over")
        return gateway.num_fds(), gateway.memory_info().rss

    asyncio.run(abort(100))
    descriptors, memory = rest()
    asyncio.run(abort(ABORTED))
    until(lambda: rest()[0] <= descriptors, "the descriptors to be given back")
    grown = rest()[1] - memory
    sys.stdout.write(
        f"{ABORTED} aborted streams: {rest()[0]} descriptors ({descriptors} before), {grown / 1e6:+.1f} MB\n"
    )
    assert grown < 12e6
    until(lambda: not bench.rows("SELECT 1 FROM holds"), "every hold to be settled")
    assert bench.rows("SELECT COUNT(*) FROM attempts WHERE outcome = 'cancelled'") == [(ABORTED + 100,)]
