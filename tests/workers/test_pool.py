"""The warm pool with real processes: what comes when it is asked for, sleeps, wakes, and makes room."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lumen.config.schema import Model
from lumen.core.errors import UnavailableError, WakingError
from lumen.hardware.devices import Device, Kind
from lumen.workers import scaling
from lumen.workers.habits import Habits, dump
from lumen.workers.load import Lease
from lumen.workers.memory import Ledger
from lumen.workers.seats import Seat
from lumen.workers.spec import Spec
from tests.workers.supervision import Watched, ask, fake_model, run, supervising, until, wanted

CARD = "cuda:0"
GIB = 1 << 30


class Card:
    """A card of 10 GiB, each model taking what its option `takes` says; one that forgets to give back at will, and on
    which a stranger has `foreign` bytes."""

    def __init__(self, total: int = 10, kind: Kind = "cuda") -> None:
        self.total = total * GIB
        devices = [Device(CARD, kind, 0, "A card", self.total), Device("ram", "ram", 0, "Memory", 1000 * GIB)]
        self.ledger = Ledger(devices, margins={CARD: 0, "ram": 0})
        self.gives_back = True
        self.foreign = 0

    def seats(self, spec: Spec, most: int) -> tuple[Seat, ...]:
        size = int(spec.model.options.get("takes", 10)) * GIB
        return (Seat((0,), {CARD: size}, {"ram": size}),)

    async def held(self, spec: Spec, owner: str, pid: int, *, asleep: bool) -> Mapping[str, int]:
        return {"ram": GIB} if asleep else {CARD: int(spec.model.options.get("takes", 10)) * GIB}

    async def read(self, pids: Mapping[str, int]) -> None:
        epoch = self.ledger.epoch
        held = {one.owner: one.charged.get(CARD, 0) for one in self.ledger.holdings()}
        if not self.gives_back:
            held = {one.owner: held[one.owner] + one.returning.get(CARD, 0) for one in self.ledger.holdings()}
        self.ledger.seen(CARD, self.total - self.foreign - sum(held.values()), held, epoch=epoch)


def model(*modes: str, **keys: Any) -> Model:
    return fake_model(*modes, **{"min_residency": 0.0, **keys})


def starts(supervisor: Watched, name: str = "m") -> int:
    return sum(one.state == "starting" and one.model == name for one in supervisor.seen)


async def served(supervisor: Watched, name: str = "m", limit: float = 90.0) -> None:
    (await supervisor.acquire(name, limit)).release(True)


def test_off_until_asked_for_then_one_start_for_all_who_ask(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir) as supervisor:
            await supervisor.apply(wanted(m=model("slow=0.2", idle_after=0.3)))
            await asyncio.sleep(0.05)
            assert supervisor.states() == []
            standing = supervisor.standings()["m"]
            assert (standing.residency, standing.resting) == ("off", True)
            waiting = [asyncio.create_task(supervisor.acquire("m", 90)) for _ in range(12)]
            await asyncio.sleep(0)
            assert not supervisor.standings()["m"].resting
            leases = await asyncio.gather(*waiting)
            assert starts(supervisor) == 1 and len(supervisor.states()) == 1
            for lease in leases:
                assert lease.woke >= 0.2 and lease.queued < lease.woke
                lease.release(True)
            await until(lambda: supervisor.states() == [])
            assert supervisor.standings()["m"].resting
            # And again.
            await served(supervisor)
            assert starts(supervisor) == 2
            assert supervisor.standings()["m"].wakes["off"] >= 0.2

    run(work())


def test_the_queue_at_the_door_is_bounded_and_a_client_that_left_does_not_stop_the_load(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir) as supervisor:
            await supervisor.apply(wanted(m=model("slow=0.3", idle_after=60.0, queue=2)))
            waiting = [asyncio.create_task(supervisor.acquire("m", 90)) for _ in range(2)]
            await asyncio.sleep(0.01)
            with pytest.raises(UnavailableError, match="too many requests wait"):
                await supervisor.acquire("m", 90)
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            await until(lambda: supervisor.count("ready"))

    run(work())


def test_who_does_not_wait_is_told_so_and_the_load_goes_on(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir) as supervisor:
            await supervisor.apply(wanted(m=model("slow=0.2", idle_after=60.0)))
            for _ in range(3):
                with pytest.raises(WakingError):
                    await supervisor.acquire("m", 0)
            await until(lambda: supervisor.count("ready"))
            await served(supervisor, limit=0)
            assert starts(supervisor) == 1

    run(work())


def test_idle_it_sleeps_then_ends_and_a_request_wakes_it(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir) as supervisor:
            await supervisor.apply(wanted(m=model(sleeps=True, keep_alive=0.2, idle_after=4.0)))
            lease = await supervisor.acquire("m", 90)
            await asyncio.sleep(0.4)
            assert supervisor.count("ready")  # busy
            (pid,) = supervisor.pids()
            lease.release(True)
            await until(lambda: supervisor.count("asleep"))
            assert supervisor.standings()["m"].residency == "asleep" and supervisor.standings()["m"].resting
            lease = await supervisor.acquire("m", 90)
            assert supervisor.pids() == [pid] and lease.woke > 0
            assert not (await ask(lease, "/"))["asleep"]
            lease.release(True)
            await until(lambda: supervisor.count("asleep"))
            await until(lambda: supervisor.states() == [])
            assert set(supervisor.standings()["m"].wakes) == {"off", "asleep"}

    run(work())


def test_one_that_cannot_sleep_ends_and_is_started_anew(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir) as supervisor:
            await supervisor.apply(wanted(m=model("insomniac", sleeps=True, keep_alive=0.1, idle_after=60.0)))
            await served(supervisor)
            await until(lambda: any(one.state == "off" for one in supervisor.seen))
            assert any("status 500" in (one.why or "") for one in supervisor.seen)
            await served(supervisor)

    run(work())


def test_one_that_sleeps_or_wakes_too_slowly_is_replaced(run_dir: Path) -> None:
    async def work() -> None:
        from tests.workers.supervision import slower

        async with supervising(run_dir, timing=slower(slumber=0.2)) as supervisor:
            await supervisor.apply(wanted(m=model("dozy=30", sleeps=True, keep_alive=0.1)))
            await served(supervisor)
            await until(lambda: any("not done sleeping after 0.2 s" in (one.why or "") for one in supervisor.seen))
            await served(supervisor)

    run(work())


def test_a_request_in_the_moment_it_falls_asleep_is_answered(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir) as supervisor:
            await supervisor.apply(wanted(m=model("dozy=0.2", sleeps=True, keep_alive=0.1)))
            await served(supervisor)
            await until(lambda: supervisor.count("sleeping"))
            # Nobody needs it, and who asks is answered: what is ready stays ready in this moment too.
            assert supervisor.standings()["m"].resting
            lease = await supervisor.acquire("m", 90)
            assert not (await ask(lease, "/"))["asleep"]
            lease.release(True)

    run(work())


@pytest.mark.parametrize("state", ["sleeping", "asleep", "waking"])
def test_killed_at_any_moment_of_its_sleep_it_comes_back(run_dir: Path, state: str) -> None:
    async def work() -> None:
        async with supervising(run_dir) as supervisor:
            await supervisor.apply(wanted(m=model("dozy=0.3", sleeps=True, keep_alive=0.1)))
            await served(supervisor)
            await until(lambda: supervisor.count("asleep" if state == "waking" else state))
            waiting = asyncio.create_task(supervisor.acquire("m", 90)) if state == "waking" else None
            await until(lambda: supervisor.count(state))
            (pid,) = [one.pid for one in supervisor.states() if one.pid]
            os.kill(pid, signal.SIGKILL)
            lease = await (waiting or supervisor.acquire("m", 90))
            assert (await ask(lease, "/"))["pid"] != pid
            lease.release(True)

    run(work())


def test_by_hand(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir) as supervisor:
            await supervisor.apply(wanted(m=model(sleeps=True), n=model()))
            await until(lambda: len(supervisor.pids()) == 2)
            held = await supervisor.acquire("m", 90)
            supervisor.sleep("m")
            supervisor.sleep("n")  # its engine cannot: it ends, and stays down although it starts with the gateway
            await until(lambda: not any(one.model == "n" for one in supervisor.states()))
            await asyncio.sleep(0.1)
            assert supervisor.count("ready") and not any(one.model == "n" for one in supervisor.states())
            held.release(True)
            await until(lambda: supervisor.count("asleep"))
            supervisor.wake("m")
            await until(lambda: supervisor.count("ready"))
            await served(supervisor, "n")
            with pytest.raises(UnavailableError):
                supervisor.sleep("nobody")

    run(work())


def test_one_that_was_sent_to_sleep_and_is_needed_again_stays_awake(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where another replica has work without end nobody ever waits, yet the one that sleeps is needed."""
    monkeypatch.setattr(scaling, "UP_AFTER", 0.1)

    async def work() -> None:
        async with supervising(run_dir) as supervisor:
            await supervisor.apply(wanted(m=model(sleeps=True, replicas=2)))
            await until(lambda: supervisor.count("ready") == 2)
            held = [await supervisor.acquire("m", 90)]
            supervisor.sleep("m")
            await until(lambda: supervisor.count("asleep") == 1)
            held += [await supervisor.acquire("m", 90) for _ in range(6)]  # the fake tells of 4 slots
            await until(lambda: supervisor.count("ready") == 2)
            # Some looks later.
            await asyncio.sleep(0.5)
            assert supervisor.count("ready") == 2
            assert sum(one.state == "asleep" for one in supervisor.seen) == 1
            for lease in held:
                lease.release(True)

    run(work())


def test_room_is_made_by_the_idle_and_never_by_the_busy(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir, memory=Card()) as supervisor:
            await supervisor.apply(wanted(a=model(min_replicas=0), b=model(min_replicas=0)))
            answer = await supervisor.acquire("a", 90)
            waiting = asyncio.create_task(supervisor.acquire("b", 90))
            await asyncio.sleep(0.3)
            assert not waiting.done() and (await ask(answer, "/"))["ok"]
            answer.release(True)
            (await waiting).release(True)
            assert [one.model for one in supervisor.states()] == ["b"]
            assert supervisor.standings()["b"].holds == {CARD: 10 * GIB}
            assert supervisor.standings()["a"].holds == {}

    run(work())


def test_what_can_sleep_makes_room_by_sleeping(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir, memory=Card()) as supervisor:
            await supervisor.apply(wanted(a=model(min_replicas=0, sleeps=True), b=model(min_replicas=0, sleeps=True)))
            pids: dict[str, set[int | None]] = {"a": set(), "b": set()}
            for name in "abab":
                await served(supervisor, name)
                pids[name] |= {one.pid for one in supervisor.states() if one.model == name}
            assert all(len(found) == 1 for found in pids.values())
            assert sorted(one.state for one in supervisor.states()) == ["asleep", "ready"]

    run(work())


def test_the_pinned_stays_and_what_can_never_fit_is_refused_at_once(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir, memory=Card()) as supervisor:
            await supervisor.apply(wanted(a=model(pinned=True), b=model(min_replicas=0)))
            await until(lambda: supervisor.count("ready", "a"))
            with pytest.raises(UnavailableError, match="does not fit"):
                await supervisor.acquire("b", 90)
            assert supervisor.count("ready", "a") == 1
            # Once there is room it is served.
            await supervisor.apply(wanted(b=model(min_replicas=0)))
            await until(lambda: supervisor.count("ready", "a") == 0)
            for _ in range(100):
                try:
                    await served(supervisor, "b")
                    return
                except UnavailableError:
                    await asyncio.sleep(0.05)
            raise AssertionError("it was never served")

    run(work())


def test_at_the_start_what_fits_comes_and_the_rest_waits_until_it_is_asked_for(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir, memory=Card()) as supervisor:
            await supervisor.apply(wanted(a=model(takes=6), b=model(takes=6), c=model(takes=4, pinned=True)))
            await until(lambda: len(supervisor.pids()) == 2)
            await until(lambda: supervisor.standings()["b"].resting)
            assert supervisor.count("ready", "a") and supervisor.count("ready", "c")
            await served(supervisor, "b")
            assert supervisor.count("ready", "b") and supervisor.count("ready", "c")
            assert not supervisor.count("ready", "a") and supervisor.standings()["a"].resting

    run(work())


def test_on_one_card_they_start_one_after_the_other(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir, memory=Card(100)) as supervisor:
            names = "abcd"
            await supervisor.apply(wanted(**{name: model("slow=0.1") for name in names}))
            await until(lambda: len(supervisor.pids()) == 4)
            loading: set[str] = set()
            for one in supervisor.seen:
                if one.state == "starting":
                    assert not loading, f"{one.model} starts beside {loading}"
                    loading.add(one.model)
                elif one.state == "ready":
                    loading.discard(one.model)

    run(work())


def test_memory_is_given_again_only_when_it_is_seen_back(run_dir: Path) -> None:
    async def work() -> None:
        card = Card()
        async with supervising(run_dir, memory=card) as supervisor:
            await supervisor.apply(wanted(a=model(min_replicas=0), b=model(min_replicas=0)))
            await served(supervisor, "a")
            card.gives_back = False
            waiting = asyncio.create_task(supervisor.acquire("b", 90))
            await until(lambda: any(one.model == "a" and one.state == "off" for one in supervisor.seen))
            await asyncio.sleep(0.4)
            assert starts(supervisor, "b") == 0
            card.gives_back = True
            (await waiting).release(True)

    run(work())


def test_mixed_traffic_over_models_that_do_not_fit_together_swaps_few_times(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir, memory=Card()) as supervisor:
            await supervisor.apply(
                wanted(**{name: model(min_replicas=0, min_residency=0.4, queue=64) for name in "abc"})
            )

            async def one(name: str, after: float) -> None:
                await asyncio.sleep(after)
                lease = await supervisor.acquire(name, 90)
                await asyncio.sleep(0.02)
                lease.release(True)

            order = itertools.islice(itertools.cycle("abc"), 60)
            await asyncio.gather(*(one(name, 0.02 * n) for n, name in enumerate(order)))
            assert sum(starts(supervisor, name) for name in "abc") <= 12
            assert not any(one.state == "crashed" for one in supervisor.seen)

    run(work())


def test_a_changed_model_that_does_not_fit_beside_the_old_one_takes_its_place(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir, memory=Card()) as supervisor:
            await supervisor.apply(wanted(m=model(pinned=True)))
            answer = await supervisor.acquire("m", 90)
            (old,) = supervisor.pids()
            await supervisor.apply(wanted(m=model("slow=0.05", pinned=True)))
            await until(lambda: supervisor.count("draining"))
            assert (await ask(answer, "/"))["pid"] == old  # it may finish
            waiting = asyncio.create_task(supervisor.acquire("m", 90))
            await asyncio.sleep(0.1)
            answer.release(True)
            lease = await waiting
            assert (await ask(lease, "/"))["pid"] != old
            lease.release(True)

    run(work())


def test_more_replicas_under_load_and_fewer_after_it(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "UP_AFTER", 0.2)
    monkeypatch.setattr(scaling, "DOWN_AFTER", 0.6)

    async def work() -> None:
        async with supervising(run_dir) as supervisor:
            await supervisor.apply(wanted(m=model(min_replicas=1, max_replicas=2)))
            await until(lambda: len(supervisor.pids()) == 1)
            (first,) = supervisor.pids()
            held: list[Lease] = [await supervisor.acquire("m", 90) for _ in range(7)]  # the fake tells of 4 slots
            await until(lambda: len(supervisor.pids()) == 2)
            held.append(await supervisor.acquire("m", 90))
            assert held[-1].replica == 1
            for lease in held:
                lease.release(True)
            await until(lambda: len(supervisor.states()) == 1)
            assert supervisor.pids() == [first]
            assert starts(supervisor) == 2

    run(work())


@pytest.mark.parametrize("prewarm", [True, False])
def test_what_is_usually_asked_for_at_this_hour_is_there_before_anybody_asks_where_that_is_wished(
    run_dir: Path, prewarm: bool
) -> None:
    kept, usual = run_dir / "pool.json", Habits()
    for week in range(6, 0, -1):
        usual.hours.add(time.time() - week * 7 * 86_400)
    kept.write_text(json.dumps(dump({"early": usual, "other": Habits()})))

    async def work() -> None:
        async with supervising(run_dir, kept=kept) as supervisor:
            rules: dict[str, Any] = {"idle_after": 0.1, "prewarm": prewarm}
            await supervisor.apply(wanted(early=model(**rules), other=model(**rules)))
            if prewarm:
                await until(lambda: supervisor.count("ready", "early") == 1)
            # The one without such a habit comes when it is asked for, and goes again; the other one stays.
            await served(supervisor, "other")
            await until(lambda: supervisor.count("ready", "other") == 0)
            assert supervisor.count("ready", "early") == int(prewarm)
            assert starts(supervisor, "early") == int(prewarm)

    run(work())


def test_what_was_learned_outlives_the_gateway(run_dir: Path) -> None:
    kept = run_dir / "pool.json"

    async def work() -> None:
        async with supervising(run_dir, kept=kept) as supervisor:
            await supervisor.apply(wanted(m=model("slow=0.1", idle_after=60.0)))
            await served(supervisor)
        known = json.loads(kept.read_text())["models"]["m"]
        assert known["wake"]["off"] >= 0.1 and len(known["hours"]) == 1
        async with supervising(run_dir, kept=kept) as supervisor:
            await supervisor.apply(wanted(m=model("slow=0.1", idle_after=60.0)))
            assert supervisor.standings()["m"].wakes == known["wake"]
        kept.write_text("[" * 5000)
        async with supervising(run_dir, kept=kept) as supervisor:
            await supervisor.apply(wanted(m=model()))
            assert supervisor.standings()["m"].wakes == {}

    run(work())
