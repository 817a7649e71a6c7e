"""The warm pool where memory is short, set aside, or held by strangers, and where operators meddle."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from lumen.core.errors import UnavailableError
from lumen.workers.habits import Habits, dump
from tests.workers.supervision import run, supervising, until, wanted
from tests.workers.test_pool import CARD, GIB, Card, model, served


def test_what_is_set_aside_while_another_one_has_it_is_taken_back_when_it_is_asked_for(run_dir: Path) -> None:
    async def work() -> None:
        card = Card()
        async with supervising(run_dir, memory=card) as supervisor:
            await supervisor.apply(wanted(a=model(min_replicas=0), b=model()))
            await until(lambda: supervisor.count("ready", "b"))
            card.ledger.earmark({"model:a": {CARD: 10 * GIB}})
            await served(supervisor, "a")
            assert supervisor.count("ready", "a") and not supervisor.count("ready", "b")
            # What is set aside for it is lent to nobody: the other one has to wait for ever, and is told so.
            with pytest.raises(UnavailableError, match="does not fit"):
                await supervisor.acquire("b", 90)

    run(work())


def test_what_a_stranger_held_is_given_once_he_is_gone_and_somebody_asks(run_dir: Path) -> None:
    async def work() -> None:
        card = Card()
        async with supervising(run_dir, memory=card) as supervisor:
            await supervisor.apply(wanted(a=model(min_replicas=0)))
            card.foreign = 5 * GIB
            with pytest.raises(UnavailableError, match="does not fit"):
                await supervisor.acquire("a", 90)
            card.foreign = 0
            async with asyncio.timeout(90):
                while True:
                    try:
                        return await served(supervisor, "a")
                    except UnavailableError:
                        await asyncio.sleep(0.05)

    run(work())


def test_what_was_sent_to_sleep_stays_asleep_also_in_its_usual_hour(run_dir: Path) -> None:
    kept, usual = run_dir / "pool.json", Habits()
    for week in range(6, 0, -1):
        usual.hours.add(time.time() - week * 7 * 86_400)
    kept.write_text(json.dumps(dump({"m": usual})))

    async def work() -> None:
        async with supervising(run_dir, kept=kept) as supervisor:
            await supervisor.apply(wanted(m=model(sleeps=True, prewarm=True, idle_after=60.0)))
            await until(lambda: supervisor.count("ready"))
            supervisor.sleep("m")
            await until(lambda: supervisor.count("asleep"))
            # Some looks later.
            for _ in range(20):
                supervisor._pool.nudge()
                await asyncio.sleep(0.01)
            assert supervisor.count("asleep") and sum(one.state == "waking" for one in supervisor.seen) == 0
            await served(supervisor)

    run(work())
