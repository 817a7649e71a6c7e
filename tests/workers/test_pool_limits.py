"""The warm pool where memory is short, set aside, or held by strangers, and where operators meddle."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from lumen.core.errors import UnavailableError, WakingError
from lumen.hardware.devices import Device, Kind
from lumen.workers import accounts, group, scaling
from lumen.workers.habits import Habits, dump
from lumen.workers.memory import Ledger
from lumen.workers.replica import Replica
from lumen.workers.seats import Seat
from lumen.workers.spec import Spec
from tests.workers.supervision import run, slower, supervising, until, wanted
from tests.workers.test_pool import CARD, GIB, Card, model, served, starts


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


@pytest.mark.parametrize("kind", ["cuda", "ram"])
def test_what_a_stranger_held_is_given_once_he_is_gone_and_somebody_asks(run_dir: Path, kind: Kind) -> None:
    async def work() -> None:
        card = Card(kind=kind)
        card.foreign = 5 * GIB
        async with supervising(run_dir, memory=card) as supervisor:
            await supervisor.apply(wanted(a=model()))
            with pytest.raises(UnavailableError, match="does not fit"):
                await supervisor.acquire("a", 90)
            assert starts(supervisor, "a") == 0
            card.foreign = 0
            async with asyncio.timeout(90):
                while True:
                    try:
                        return await served(supervisor, "a")
                    except UnavailableError:
                        await asyncio.sleep(0.05)

    run(work())


@pytest.mark.parametrize("kind", ["cuda", "ram"])
def test_what_a_stranger_held_is_given_also_where_nobody_asks(
    run_dir: Path, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "_WATCH", 0.1)

    async def work() -> None:
        card = Card(kind=kind)
        card.foreign = 5 * GIB
        async with supervising(run_dir, memory=card) as supervisor:
            await supervisor.apply(wanted(a=model()))
            await asyncio.sleep(0.3)
            assert supervisor.count("waiting", "a") and starts(supervisor, "a") == 0
            card.foreign = 0
            await until(lambda: supervisor.count("ready", "a"))

    run(work())


def test_what_a_killed_process_left_behind_is_looked_for_until_it_is_seen_back(run_dir: Path) -> None:
    asked: list[dict[str, int]] = []

    class Noting(Card):
        async def read(self, pids: Mapping[str, int]) -> None:
            asked.append(dict(pids))
            await super().read(pids)

    async def work() -> None:
        card = Noting()
        async with supervising(run_dir, memory=card, timing=slower(backoff=0.5)) as supervisor:
            await supervisor.apply(wanted(a=model()))
            await until(lambda: supervisor.pids())
            (pid,) = supervisor.pids()
            card.gives_back = False
            before = len(asked)
            os.kill(pid, signal.SIGKILL)
            await until(lambda: len(asked) > before + 2)
            # Its helpers may outlive it, and hold what it held: by its number they are found.
            assert all(pid in one.values() for one in asked[before:])
            card.gives_back = True
            await until(lambda: supervisor.pids() and supervisor.pids() != [pid])

    run(work())


def test_one_that_ends_the_moment_it_is_ready_holds_up_no_other_one_on_its_card(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir, memory=Card(100)) as supervisor:
            await supervisor.apply(wanted(a=model(), b=model(min_replicas=0)))
            answer = await supervisor.acquire("a", 90)
            await supervisor.apply(wanted(b=model(min_replicas=0)))
            await served(supervisor, "b", 20)
            assert supervisor.count("draining", "a")
            answer.release(True)

    run(work())


def test_what_is_set_aside_is_used_by_its_model_also_while_it_sleeps(run_dir: Path) -> None:
    async def work() -> None:
        card = Card()
        card.ledger.earmark({"model:a": {"ram": 10 * GIB}})
        async with supervising(run_dir, memory=card) as supervisor:
            await supervisor.apply(wanted(a=model(sleeps=True, pinned=True)))
            await until(lambda: supervisor.count("ready", "a"))
            supervisor.sleep("a")
            await until(lambda: supervisor.standings()["a"].holds == {"ram": GIB})
            _, memory = card.ledger.standing()
            assert (memory.set_aside, memory.charged) == (9 * GIB, GIB)
            assert [one.pinned for one in card.ledger.holdings()] == [True]

    run(work())


def test_what_a_sleeping_one_keeps_for_good_is_its_own(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the driver does not tell whose memory is whose, only time does."""
    monkeypatch.setattr(accounts, "_BACK", 0.2)

    class Silent(Card):
        async def held(self, spec: Spec, owner: str, pid: int, *, asleep: bool) -> Mapping[str, int]:
            return {}

    async def work() -> None:
        card = Silent()
        async with supervising(run_dir, memory=card) as supervisor:
            await supervisor.apply(wanted(a=model(sleeps=True)))
            await until(lambda: supervisor.count("ready", "a"))
            card.gives_back = False
            supervisor.sleep("a")
            await until(lambda: supervisor.count("asleep", "a"))
            assert card.ledger.standing()[0].returning == 10 * GIB
            await until(lambda: supervisor.standings()["a"].holds == {CARD: 10 * GIB, "ram": 10 * GIB})
            assert card.ledger.standing()[0].returning == 0
            # Nothing is on its way, so nobody looks for it.
            await until(lambda: supervisor._pool._accounts._reading is None)
            await served(supervisor, "a")

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


class Two(Card):
    """Two cards of 10 GiB, the emptier one first."""

    def __init__(self) -> None:
        super().__init__()
        here = [Device(f"cuda:{number}", "cuda", number, "A card", 10 * GIB) for number in (0, 1)]
        self.ledger = Ledger(here, margins=dict.fromkeys(("cuda:0", "cuda:1"), 0))

    def seats(self, spec: Spec, most: int) -> tuple[Seat, ...]:
        size = int(spec.model.options["takes"]) * GIB
        cards = sorted(self.ledger.devices, key=lambda card: -self.ledger.free(card))
        return tuple(Seat((int(card[-1]),), {card: size}) for card in cards)

    async def held(self, spec: Spec, owner: str, pid: int, *, asleep: bool) -> Mapping[str, int]:
        return {}

    async def read(self, pids: Mapping[str, int]) -> None:
        for card in self.ledger.devices:
            held = {one.owner: one.charged.get(card, 0) for one in self.ledger.holdings()}
            self.ledger.seen(card, 10 * GIB - sum(held.values()), held)


def test_two_that_come_at_once_are_put_where_it_was_decided(run_dir: Path) -> None:
    async def work() -> None:
        machine = Two()
        async with supervising(run_dir, memory=machine) as supervisor:
            turn, given = supervisor._pool._accounts.turn, []

            def noted(replica: Replica, seat: Seat, *, pinned: bool) -> bool:
                given.append(turn(replica, seat, pinned=pinned))
                return given[-1]

            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(supervisor._pool._accounts, "turn", noted)
                await supervisor.apply(wanted(a=model(takes=6), b=model(takes=6)))
                await until(lambda: supervisor.count("ready", "a") and supervisor.count("ready", "b"))
            assert given == [True, True]

    run(work())


def test_no_more_replicas_than_allowed_also_while_one_falls_asleep(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaling, "UP_AFTER", 0.05)

    async def work() -> None:
        async with supervising(run_dir) as supervisor:
            await supervisor.apply(wanted(m=model("dozy=0.6", sleeps=True, replicas=2)))
            await until(lambda: supervisor.count("ready") == 2)
            held = [await supervisor.acquire("m", 90)]
            supervisor.sleep("m")
            await until(lambda: supervisor.count("sleeping") == 1)
            held += [await supervisor.acquire("m", 90) for _ in range(6)]  # the fake tells of 4 slots
            await until(lambda: supervisor.count("ready") == 2)
            assert {one.index for one in supervisor.seen} == {0, 1} and len(supervisor.states()) == 2
            for lease in held:
                lease.release(True)

    run(work())


def test_nothing_is_remembered_of_replicas_and_models_that_are_gone(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir, memory=Card()) as supervisor:
            await supervisor.apply(wanted(a=model(min_replicas=0), b=model(min_replicas=0)))
            for name, other in ("ab", "ba"):
                answer = await supervisor.acquire(name, 90)
                waiting = asyncio.create_task(supervisor.acquire(other, 90))
                closed = supervisor._pool.members[name].closed
                await until(lambda closed=closed: closed)
                answer.release(True)
                (await waiting).release(True)
                await until(lambda name=name: not any(one.model == name for one in supervisor.states()))
                assert closed == {}
            await supervisor.apply(wanted(a=model(min_replicas=0)))  # the other one is down
            assert supervisor._pool.leaving == set()

    run(work())


def test_nobody_who_was_closed_to_requests_before_is_thought_to_be_still(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir, memory=Card()) as supervisor:
            await supervisor.apply(wanted(a=model(min_replicas=0), b=model(min_replicas=0)))
            answer = await supervisor.acquire("a", 90)
            waiting = asyncio.create_task(supervisor.acquire("b", 0.3))
            await until(lambda: supervisor._pool.members["a"].closed)
            with pytest.raises(WakingError):
                await waiting
            supervisor._pool.members["b"].asked = -1e9  # long ago
            supervisor._pool.nudge()
            await until(lambda: not supervisor._pool.members["a"].closed)
            answer.release(True)

    run(work())


def test_the_hours_of_a_model_that_stays_are_learned_too(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir) as supervisor:
            await supervisor.apply(wanted(m=model()))
            await until(lambda: supervisor.count("ready"))
            hours = supervisor._pool.members["m"].known.hours
            assert hours.dump()["hours"] == []
            await served(supervisor)  # at once: nothing changes, and nobody looks
            supervisor._pool.nudge()
            await asyncio.sleep(0.05)
            assert len(hours.dump()["hours"]) == 1

    run(work())


def test_one_that_failed_again_and_again_is_tried_now_and_then_though_another_one_has_its_place(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group, "_TRIED", 0.3)

    async def work() -> None:
        async with supervising(run_dir, memory=Card(), timing=slower(backoff=0.5, backoff_most=60.0)) as supervisor:
            broken = model(f"crashes=3:{run_dir / 'starts'}", min_replicas=1)
            await supervisor.apply(wanted(a=broken, b=model(min_replicas=0)))
            await until(lambda: sum(one.model == "a" and one.state == "crashed" for one in supervisor.seen) == 3)
            with pytest.raises(UnavailableError, match="cannot be started"):
                await supervisor.acquire("a", 90)
            await served(supervisor, "b")
            # It waits for its turn; who asks for it is told at once that it does not start.
            await until(lambda: supervisor.count("waiting", "a"))
            assert supervisor.count("ready", "b")
            async with asyncio.timeout(90):
                while not supervisor.count("ready", "a"):
                    with suppress(UnavailableError):
                        await served(supervisor, "a")
                    await asyncio.sleep(0.05)

    run(work())
