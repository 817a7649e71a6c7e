"""One of two gateways is killed at a step of the handover: the other one serves, and the books are exact."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from lumen_cli.errors import CliError

from lumen.ledger.journal import handed, left
from tests.e2e.conftest import until
from tests.e2e.emulated import Emulated, emulated

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e-handover-killed"), pytest.mark.timeout(240)]
OUTPUT = 2_000_000
CONFIG = """
providers:
  paid:
    base_url: http://127.0.0.1:PORT/v1
    dialect: openai
    models: {"*": {price: {input: 0, output: 2}}}
routes:
  fast: {targets: [paid/words-3]}
server: {drain: 15s}
logging: {level: error}
"""
SHORT, LONG = "words-3", "slow-30-50"
# Steps at which the old one goes on, as the new one had not begun to serve; and those at which the new one serves.
EARLY = ["got taken", "sent go", "sent here", "got gone", "send mine"]
OLD = ["sent taken", "sent come", "got here", "sent gone", "outbox", "closed", "sent released"]
LATE = ["sent mine", "got released", "opened"]


@dataclass
class Place(Emulated):
    """`answered`: ids of requests whose clients were told that all is done, and how many words they came to."""

    answered: list[tuple[str, int]] = field(default_factory=list)
    gateways: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def gateway(self, step: str, *args: str) -> subprocess.Popen[bytes]:
        with (self.box.home / "gateway.txt").open("ab") as log:
            started = subprocess.Popen(
                [sys.executable, "-m", "tests.e2e.stepped", step, *args], env=self.box.env, stdout=log, stderr=log
            )
        self.gateways.append(started)
        return started

    def serves(self, process: subprocess.Popen[bytes]) -> None:
        def told() -> bool:
            with suppress(CliError):
                return bool(self.box.status()["pid"] == process.pid)
            return False

        until(told, "the gateway to be the one that serves")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with emulated(tmp_path / "box", CONFIG) as made:
        made.box.lumen("down")
        found = Place(made.box, made.port)
        try:
            yield found
        finally:
            for one in found.gateways:
                one.kill()
                one.wait()


async def clients(place: Place, url: str, over: asyncio.Event) -> None:
    """Ask until it is over; what fails is asked anew, as clients do."""
    headers = {"Authorization": f"Bearer {place.box.key}"}

    async def again(session: aiohttp.ClientSession, model: str, words: int, *, stream: bool) -> None:
        body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": "x"}], "max_tokens": 100}
        while not over.is_set():
            with suppress(aiohttp.ClientError, OSError, TimeoutError):
                async with session.post(f"{url}/chat/completions", json=body) as answer:
                    raw = await answer.read()
                    if answer.status == 200 and raw.endswith(b"data: [DONE]\n\n" if stream else b"}"):
                        place.answered.append((answer.headers["x-request-id"], words))
            await asyncio.sleep(0.01)

    limit = aiohttp.ClientTimeout(total=20)
    fresh = aiohttp.TCPConnector(force_close=True)
    async with (
        aiohttp.ClientSession(headers=headers, timeout=limit) as kept,
        aiohttp.ClientSession(headers=headers, timeout=limit, connector=fresh) as anew,
    ):
        await asyncio.gather(
            again(kept, f"paid/{SHORT}", 3, stream=False),
            again(anew, f"paid/{SHORT}", 3, stream=True),
            again(kept, f"paid/{LONG}", 30, stream=True),
            again(anew, f"paid/{LONG}", 30, stream=True),
        )


async def through(place: Place, url: str, new_step: str, victim: str) -> tuple[subprocess.Popen[bytes], int]:
    """Load while one takes over from the other and one is killed; the new one, and how many were answered since."""
    over = asyncio.Event()
    load = asyncio.ensure_future(clients(place, url, over))
    try:
        async with asyncio.timeout(120):
            while len(place.answered) < 10:
                await asyncio.sleep(0.02)
            new = place.gateway(new_step, "--port", "0", "--succeed")
            dies = new if victim == "new" else place.gateways[0]
            while dies.poll() is None:
                await asyncio.sleep(0.02)
            before = len(place.answered)
            until_then = time.monotonic() + (3 if new_step in LATE else 60)
            # One more of each kind is answered, where there is somebody left to answer.
            while time.monotonic() < until_then and len(place.answered) < before + 20:
                await asyncio.sleep(0.02)
    finally:
        over.set()
        await load
    return new, len(place.answered) - before


def ended(place: Place) -> None:
    for one in place.gateways:
        if one.poll() is None:
            one.terminate()
            one.wait(100)


def exact(place: Place) -> None:
    """After one more start, all that was answered is booked once, at what it costs, and nothing is held."""
    path = place.box.home / "state" / "ledger.db"
    last = place.gateway("none", "--port", "0")
    place.serves(last)
    last.terminate()
    assert last.wait(100) == 0
    assert not handed(path) and not left(path)
    booked = place.rows("SELECT request, outcome, cost FROM attempts")
    assert len({row[0] for row in booked}) == len(booked)
    costs = {row[0]: row[2] for row in booked}
    assert {request: costs.get(request) for request, _ in place.answered} == {
        request: words * OUTPUT for request, words in place.answered
    }
    assert place.rows("SELECT count(*) FROM holds") == [(0,)]
    assert place.rows("SELECT sum(whole) * 1000000 + sum(rest) FROM spend") == [(sum(costs.values()),)]


def began(place: Place, step: str) -> str:
    old = place.gateway(step, "--port", "0")
    place.serves(old)
    return place.box.url


@pytest.mark.parametrize("step", EARLY)
def test_the_new_one_is_killed_before_it_serves_and_the_old_one_goes_on(place: Place, step: str) -> None:
    url = began(place, "none")
    _, since = asyncio.run(through(place, url, step, "new"))
    assert since >= 20
    place.serves(place.gateways[0])
    # And another may try.
    new = place.gateway("none", "--port", "0", "--succeed")
    place.serves(new)
    assert place.gateways[0].wait(100) == 0
    ended(place)
    exact(place)


@pytest.mark.parametrize("step", OLD)
def test_the_old_one_is_killed_and_the_new_one_serves(place: Place, step: str) -> None:
    url = began(place, step)
    new, since = asyncio.run(through(place, url, "none", "old"))
    if step == "sent taken" and new.poll() is not None:
        # It had nothing yet to serve with.
        assert since == 0
    else:
        assert since >= 20
        place.serves(new)
    ended(place)
    exact(place)


@pytest.mark.parametrize("step", LATE)
def test_the_new_one_is_killed_when_it_serves_and_nothing_that_was_answered_is_lost(place: Place, step: str) -> None:
    url = began(place, "none")
    asyncio.run(through(place, url, step, "new"))
    # The old one ends what it has begun.
    assert place.gateways[0].wait(100) == 0
    exact(place)


def test_both_are_killed_while_the_old_one_still_answers(place: Place) -> None:
    url = began(place, "none")

    async def work() -> None:
        over = asyncio.Event()
        load = asyncio.ensure_future(clients(place, url, over))
        try:
            async with asyncio.timeout(120):
                while len(place.answered) < 10:
                    await asyncio.sleep(0.02)
                place.gateway("none", "--port", "0", "--succeed")
                while not handed(place.box.home / "state" / "ledger.db"):
                    await asyncio.sleep(0.002)
                before = len(place.answered)
                while len(place.answered) < before + 8:
                    await asyncio.sleep(0.002)
                for one in place.gateways:
                    one.kill()
        finally:
            over.set()
            await load

    asyncio.run(work())
    exact(place)


def test_paid_requests_are_served_at_once_while_the_old_one_drains(place: Place) -> None:
    url = began(place, "none")
    headers = {"Authorization": f"Bearer {place.box.key}"}

    async def one(session: aiohttp.ClientSession, model: str) -> None:
        body = {"model": model, "messages": [{"role": "user", "content": "x"}], "max_tokens": 300, "stream": True}
        async with session.post(f"{url}/chat/completions", json=body) as answer:
            raw = await answer.read()
            assert answer.status == 200 and raw.endswith(b"data: [DONE]\n\n"), raw[-300:]
            place.answered.append((answer.headers["x-request-id"], 250 if "slow" in model else 3))

    async def work() -> int:
        async with aiohttp.ClientSession(headers=headers) as session:
            long = asyncio.ensure_future(one(session, "paid/slow-250-50"))
            await asyncio.sleep(0.2)
            new = place.gateway("none", "--port", "0", "--succeed")
            during = 0
            while not long.done():
                await one(session, f"paid/{SHORT}")
                during += (
                    not long.done()
                    and place.gateways[0].poll() is None
                    and bool(handed(place.box.home / "state" / "ledger.db"))
                )
            await long
            while place.gateways[0].poll() is None:
                await asyncio.sleep(0.02)
            assert new.poll() is None
        return during

    # One after the other, the new one served them while the old one went on with the long one, which takes a dozen
    # seconds; one that waited for the end of that would be the only one.
    assert asyncio.run(work()) >= 4
    ended(place)
    exact(place)
