"""`lumen restart` under load, with real processes: not one request is lost, and the books are exact."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import psutil
import pytest

from tests.e2e.conftest import until
from tests.e2e.emulated import Emulated, emulated

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e-handover"), pytest.mark.timeout(300)]
# Pico-dollars a token: two dollars a million for output, nothing for input.
OUTPUT = 2_000_000
CONFIG = """
providers:
  paid:
    base_url: http://127.0.0.1:PORT/v1
    dialect: openai
    models: {"*": {price: {input: 0, output: 2}}}
  free:
    base_url: http://127.0.0.1:PORT/v1
    dialect: openai
    models: {"*": {price: {input: 0, output: 0}}}
routes:
  local: {targets: [lumen-tiny]}
"""
LONG, WORDS = "slow-60-50", 60


@dataclass
class Place(Emulated):
    """`seen`: ids of the answers that clients got. `bad`: what was not as it should be."""

    seen: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with emulated(tmp_path / "box", CONFIG) as made:
        yield Place(made.box, made.port)


async def ask(place: Place, session: aiohttp.ClientSession, url: str, model: str, words: int, *, stream: bool) -> None:
    """One request, whole to its end; anything else is noted as bad."""
    body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": "go"}], "max_tokens": 100}
    try:
        async with session.post(f"{url}/chat/completions", json=body) as answer:
            raw = await answer.read()
            ended = raw.endswith(b"data: [DONE]\n\n" if stream else b"}")
            if answer.status != 200 or not ended or raw.count(b"word") < words:
                place.bad.append(f"{model} {answer.status} {raw[-200:]!r}")
            place.seen.append(answer.headers.get("x-request-id", ""))
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        place.bad.append(f"{model} {error!r}")


async def load(place: Place, url: str, restarts: int) -> None:
    """Many kinds of clients at once, from before the first restart to after the last."""
    over = asyncio.Event()
    headers = {"Authorization": f"Bearer {place.box.key}"}
    kept = aiohttp.ClientSession(headers=headers)
    anew = aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(force_close=True))

    async def again(session: aiohttp.ClientSession, model: str, words: int, pause: float, *, stream: bool) -> None:
        while not over.is_set():
            await ask(place, session, url, model, words, stream=stream)
            await asyncio.sleep(pause)

    kinds = [
        again(kept, "free/words-3", 3, 0.01, stream=False),
        again(kept, "free/words-3", 3, 0.0, stream=True),
        again(anew, "free/words-3", 3, 0.01, stream=False),
        again(kept, "paid/words-5", 5, 0.01, stream=False),
        again(anew, "paid/words-5", 5, 0.02, stream=True),
        again(kept, "local", 0, 0.02, stream=True),
        again(kept, f"paid/{LONG}", WORDS, 0.0, stream=True),
        again(anew, f"free/{LONG}", WORDS, 0.0, stream=True),
        # Idle for longer than it takes: the connection is handed over while nothing is on it.
        again(kept, "free/words-2", 2, 0.7, stream=False),
    ]
    async with kept, anew:
        clients = [asyncio.ensure_future(kind) for kind in kinds]
        try:
            for _ in range(restarts):
                await asyncio.sleep(0.5)
                await asyncio.to_thread(place.box.lumen, "restart")
            await asyncio.sleep(0.3)
        finally:
            over.set()
            await asyncio.gather(*clients)


def test_no_request_is_lost_over_restarts_and_every_one_is_booked_once(place: Place) -> None:
    box = place.box
    before, url = box.status(), box.url
    asyncio.run(load(place, url, restarts=2))
    assert place.bad == []
    after = box.status()
    assert after["pid"] != before["pid"] and after["url"] == url and after["ready"]
    assert not psutil.pid_exists(before["pid"]) or psutil.Process(before["pid"]).status() == "zombie"
    log = (box.home / "state" / "logs" / "gateway.log").read_text()
    assert log.count("another gateway takes over") == log.count("its ledger is taken over") == 2
    # The engines of those before are gone too.
    assert len(box.engines()) == 1
    box.lumen("down")
    assert len(set(place.seen)) == len(place.seen) > 50
    booked = place.rows("SELECT request, outcome, cost, output, provider FROM attempts")
    assert sorted(row[0] for row in booked) == sorted(place.seen)
    assert {row[1] for row in booked} == {"ok"}
    assert all(row[2] == (row[3] * OUTPUT if row[4] == "paid" else 0) for row in booked)
    assert place.rows("SELECT count(*) FROM holds") == [(0,)]
    (spent,) = place.rows("SELECT sum(whole) * 1000000 + sum(rest) FROM spend")[0]
    assert spent == sum(row[2] for row in booked) > 0


def test_a_new_gateway_that_cannot_start_leaves_the_old_one_serving(place: Place) -> None:
    box = place.box
    before = box.status()
    config = box.home / "config" / "config.yaml"
    config.write_text(config.read_text() + "models:\n  broken: {source: /nowhere/at/all.gguf, engine: nonsense}\n")
    done = box.lumen("restart", check=False)
    assert done.returncode != 0 and "nonsense" in done.stderr
    assert box.status()["pid"] == before["pid"] and box.status()["ready"]
    answer = box.client().chat.completions.create(model="free/words-3", messages=[{"role": "user", "content": "x"}])
    assert answer.choices[0].message.content


def test_the_old_one_killed_while_it_hands_over_costs_its_own_streams_and_nothing_else(place: Place) -> None:
    box = place.box
    pid, url = box.status()["pid"], box.url
    stream = box.client().chat.completions.create(
        model="paid/slow-4000-50", messages=[{"role": "user", "content": "x"}], stream=True
    )
    next(iter(stream))
    restart = subprocess.Popen([sys.executable, "-m", "lumen_cli", "restart"], env=box.env, stdout=subprocess.DEVNULL)
    until(lambda: box.lumen("status", "--json", check=False).returncode == 0 and box.status()["pid"] != pid, "the new")
    os.kill(pid, signal.SIGKILL)
    with suppress(Exception):
        for _ in stream:
            continue
    answer = box.client(base_url=url).chat.completions.create(
        model="paid/words-3", messages=[{"role": "user", "content": "x"}]
    )
    assert answer.choices[0].message.content
    assert restart.wait(100) == 0
    box.lumen("down")
    outcomes = dict(place.rows("SELECT outcome, count(*) FROM attempts GROUP BY 1"))
    assert outcomes == {"lost": 1, "ok": 1}
    assert place.rows("SELECT count(*) FROM holds") == [(0,)]
