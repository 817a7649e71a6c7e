"""A pool under everything at once: traffic over models that do not fit together, kills, sleeps, wakes, changes."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from lumen.core.errors import UnavailableError
from tests.workers.supervision import Watched, ask, run, supervising, until, wanted
from tests.workers.test_pool import CARD, GIB, Card, model

NAMES = "abcd"
SECONDS = 6.0


def models(draw: random.Random) -> dict[str, object]:
    """As configured at some moment; a different `version` is a different process."""
    return {
        name: model(
            takes=draw.choice([3, 5]),
            sleeps=name in "ab",
            keep_alive=0.2 if name in "ac" else None,
            idle_after=0.6 if name in "bc" else None,
            min_residency=0.05,
            replicas=draw.choice([1, 2]) if name == "a" else 1,
            pinned=False,
            queue=64,
            version=draw.randrange(3),
        )
        for name in NAMES
        if name != "d" or draw.random() < 0.8
    }


async def client(supervisor: Watched, draw: random.Random, served: list[str], over: asyncio.Event) -> None:
    while not over.is_set():
        name = draw.choice(NAMES)
        try:
            lease = await supervisor.acquire(name, draw.choice([0.0, 5.0]))
        except UnavailableError:
            await asyncio.sleep(0.02)
            continue
        ok = False
        with suppress(Exception):
            # A killed process takes its answers along: that is what failover is for.
            await ask(lease, "/")
            ok = True
            served.append(name)
        await asyncio.sleep(draw.random() * 0.05)
        lease.release(ok)


async def trouble(supervisor: Watched, draw: random.Random, over: asyncio.Event) -> None:
    while not over.is_set():
        await asyncio.sleep(draw.random() * 0.2)
        match draw.randrange(6):
            case 0 | 1:
                pids = [one.pid for one in supervisor.states() if one.pid is not None]
                if pids:
                    with suppress(ProcessLookupError):
                        os.kill(draw.choice(pids), signal.SIGKILL)
            case 2:
                with suppress(UnavailableError):
                    supervisor.sleep(draw.choice(NAMES))
            case 3:
                with suppress(UnavailableError):
                    supervisor.wake(draw.choice(NAMES))
            case 4:
                with suppress(UnavailableError):
                    await supervisor.restart(draw.choice(NAMES))
            case 5:
                await supervisor.apply(wanted(**models(draw)))  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_happens_everybody_is_served_and_the_books_are_right(run_dir: Path, seed: int) -> None:
    async def work() -> None:
        card, draw, served = Card(), random.Random(seed), list[str]()
        async with supervising(run_dir, memory=card) as supervisor:
            await supervisor.apply(wanted(**models(draw)))  # type: ignore[arg-type]
            over = asyncio.Event()
            tasks = [
                asyncio.create_task(client(supervisor, random.Random(seed * 100 + n), served, over)) for n in range(6)
            ]
            tasks.append(asyncio.create_task(trouble(supervisor, draw, over)))
            loop = asyncio.get_running_loop()
            end = loop.time() + SECONDS
            while loop.time() < end:
                await asyncio.sleep(0.01)
                standing = next(one for one in card.ledger.standing() if one.device.id == CARD)
                assert standing.charged + standing.returning <= card.total
                for task in tasks:
                    assert not task.done() or task.result() is None
            over.set()
            await asyncio.gather(*tasks)
            # Afterwards every model is served, one by one, however it stands.
            await supervisor.apply(wanted(**{name: model(takes=5, min_replicas=0, version=9) for name in NAMES}))
            for name in NAMES:
                (await supervisor.acquire(name, 90)).release(True)
            await until(lambda: all(one.state in ("ready", "waiting") for one in supervisor.states()))
            books = {one.owner: one.charged.get(CARD, 0) for one in card.ledger.holdings() if one.charged.get(CARD)}
            assert sum(books.values()) == 5 * GIB * supervisor.count_all("ready")
        assert served
        assert [one for one in card.ledger.holdings() if one.charged] == []

    run(work(), 100)
