"""Which replicas run, and which of them a request gets."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from lumen.config.schema import Model
from lumen.core.errors import ConfigError, UnavailableError
from lumen.engines.base import ModelFiles
from lumen.engines.command import Command
from lumen.workers.load import Lease, Line
from lumen.workers.ports import free_port, is_free
from lumen.workers.supervisor import Supervisor
from tests.workers.supervision import PROGRAM, QUICK, ask, fake_model, run, sockets, supervising, until, wanted


def test_what_did_not_change_keeps_running(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir) as supervisor:
            await supervisor.apply(wanted(a=fake_model(), b=fake_model()))
            await until(lambda: len(supervisor.pids()) == 2)
            pids = supervisor.pids()
            await supervisor.apply(wanted(a=fake_model(), b=fake_model(queue=99)))
            assert supervisor.pids() == pids
            await supervisor.apply(wanted(a=fake_model()))
            await until(lambda: len(supervisor.states()) == 1)
            assert supervisor.pids() == pids[:1]
            with pytest.raises(UnavailableError, match="'b' is not being served"):
                await supervisor.acquire("b", 5)

    run(work())


def test_more_and_fewer_replicas_touch_no_others(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir) as supervisor:
            await supervisor.apply(wanted(m=fake_model(replicas=1)))
            await until(lambda: supervisor.count("ready") == 1)
            (first,) = supervisor.pids()
            await supervisor.apply(wanted(m=fake_model(replicas=3)))
            await until(lambda: supervisor.count("ready") == 3)
            assert [one.index for one in supervisor.states()] == [0, 1, 2]
            await supervisor.apply(wanted(m=fake_model(replicas=1)))
            await until(lambda: len(supervisor.states()) == 1)
            assert supervisor.pids() == [first]

    run(work())


def test_a_changed_model_is_served_without_a_gap(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir) as supervisor:
            await supervisor.apply(wanted(m=fake_model()))
            held = await supervisor.acquire("m", 90)
            (old,) = supervisor.pids()
            await supervisor.apply(wanted(m=fake_model("slow=0.3")))
            while supervisor.pids() == [old]:
                (await supervisor.acquire("m", 0)).release()  # never refused, never waits
                await asyncio.sleep(0.01)
            await until(lambda: supervisor.count("draining"))
            lease = await supervisor.acquire("m", 0)
            assert (await ask(lease, "/"))["pid"] != old
            lease.release()
            # The answer that was running may finish on the old one.
            assert (await ask(held, "/"))["pid"] == old
            held.release()
            await until(lambda: len(supervisor.states()) == 1)

    run(work())


def test_a_change_that_does_not_come_up_leaves_the_old_one_and_can_be_taken_back(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir) as supervisor:
            await supervisor.apply(wanted(m=fake_model()))
            (await supervisor.acquire("m", 90)).release()
            pids = supervisor.pids()
            await supervisor.apply(wanted(m=fake_model("crash")))
            await until(lambda: any(one.restarts >= 3 for one in supervisor.states()))
            (await supervisor.acquire("m", 0)).release()
            await supervisor.apply(wanted(m=fake_model()))
            await until(lambda: len(supervisor.states()) == 1)
            assert supervisor.pids() == pids

    run(work())


def test_restart_replaces_them_all_and_a_reload_after_it_none(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir) as supervisor:
            models = wanted(m=fake_model(replicas=2))
            await supervisor.apply(models)
            await until(lambda: supervisor.count("ready") == 2)
            old = supervisor.pids()
            await supervisor.restart("m")
            await until(lambda: len(supervisor.pids()) == 2 and not set(old) & set(supervisor.pids()))
            await until(lambda: len(supervisor.states()) == 2)
            new = supervisor.pids()
            await supervisor.apply(models)
            assert supervisor.pids() == new
            with pytest.raises(UnavailableError):
                await supervisor.restart("nobody")

    run(work())


def test_a_bad_model_changes_nothing(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir) as supervisor:
            await supervisor.apply(wanted(a=fake_model()))
            await until(lambda: supervisor.count("ready", "a"))
            supervisor._engines = lambda name: Command()
            bad = Model(source="x", engine="command", options={"comand": "serve"})
            with pytest.raises(ConfigError, match=r"model 'b': .* did you mean 'command'"):
                await supervisor.apply(wanted(b=bad))
            assert [one.model for one in supervisor.states() if one.state == "ready"] == ["a"]

    run(work())


def test_requests_go_to_the_least_busy_and_waiters_are_served_in_turn(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir) as supervisor:
            await supervisor.apply(wanted(m=fake_model(replicas=2, queue=100)))
            order: list[int] = []

            async def one(number: int) -> Lease:
                lease = await supervisor.acquire("m", 90)
                order.append(number)
                return lease

            leases = await asyncio.gather(*(one(number) for number in range(30)))
            assert order == list(range(30))
            await until(lambda: supervisor.count("ready") == 2)
            leases += [await supervisor.acquire("m", 0) for _ in range(30)]
            for index in (0, 1):
                assert sum(lease.replica == index for lease in leases) == 30
            for lease in leases:
                lease.release()
            assert [one.in_flight for one in supervisor.states()] == [0, 0]

    run(work())


def test_a_replica_that_just_failed_a_request_is_asked_only_where_no_other_is_ready(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir) as supervisor:
            await supervisor.apply(wanted(m=fake_model(replicas=2, queue=100)))
            await until(lambda: supervisor.count("ready") == 2)
            first = await supervisor.acquire("m", 0)
            assert supervisor.spare("m"), "whom to ask in its place"
            # No wait between here and the last line: the probe that clears or restarts it has not run yet.
            first.release(ok=False)
            assert not supervisor.spare("m")
            # The other one is busier with each, and still the better choice.
            leases = [await supervisor.acquire("m", 0) for _ in range(5)]
            assert {lease.replica for lease in leases} == {1 - first.replica}
            leases[0].release(ok=False)
            # Now both are suspect: the least busy again.
            last = await supervisor.acquire("m", 0)
            assert last.replica == first.replica
            for lease in (*leases, last):
                lease.release()

    run(work())


def test_the_queue_of_waiters_is_bounded_and_those_who_leave_free_their_place(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir) as supervisor:
            await supervisor.apply(wanted(m=fake_model("slow=1", queue=2)))
            gives_up = asyncio.create_task(supervisor.acquire("m", 90))
            stays = asyncio.create_task(supervisor.acquire("m", 90))
            await asyncio.sleep(0)
            with pytest.raises(UnavailableError, match="too many requests wait") as full:
                await supervisor.acquire("m", 90)
            assert full.value.status == 503 and full.value.retry_after
            gives_up.cancel()
            await asyncio.wait({gives_up})
            with pytest.raises(UnavailableError, match="still starting"):
                await supervisor.acquire("m", 0.05)
            (await stays).release()
            assert supervisor.states()[0].in_flight == 0

    run(work())


def test_a_request_cancelled_while_it_is_being_served_gives_its_lease_back(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir) as supervisor:
            await supervisor.apply(wanted(m=fake_model("slow=0.2")))
            tasks = [asyncio.create_task(supervisor.acquire("m", 90)) for _ in range(8)]
            # The moment it turns ready, before any of them has run again.
            supervisor._on_change = lambda state: [task.cancel() for task in tasks] if state.state == "ready" else None
            await asyncio.wait(tasks)
            leases = [task.result() for task in tasks if not task.cancelled()]
            assert supervisor.states()[0].in_flight == len(leases)
            for lease in leases:
                lease.release()

    run(work())


def test_a_replica_with_too_much_on_it_refuses_with_429(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir) as supervisor:
            await supervisor.apply(wanted(m=fake_model(queue=2)))  # the fake worker tells of 4 slots
            leases = [await supervisor.acquire("m", 90) for _ in range(6)]
            with pytest.raises(UnavailableError) as full:
                await supervisor.acquire("m", 90)
            assert (full.value.status, full.value.code) == (429, "queue_full")
            assert full.value.retry_after is not None and 1 <= full.value.retry_after <= 60
            leases[0].release()
            leases[0] = await supervisor.acquire("m", 0)
            for lease in leases:
                lease.release()

    run(work())


def test_waiters_of_a_model_that_is_taken_away_are_told(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir) as supervisor:
            await supervisor.apply(wanted(m=fake_model("slow=30")))
            waiting = asyncio.create_task(supervisor.acquire("m", 90))
            await asyncio.sleep(0)
            await supervisor.apply({})
            with pytest.raises(UnavailableError, match="not being served any more"):
                await waiting

    run(work())


@pytest.mark.parametrize("health", [None, "/health"])
def test_an_engine_on_a_port_without_phases(run_dir: Path, health: str | None) -> None:
    async def work() -> None:
        async with supervising(run_dir) as supervisor:
            await supervisor.apply(wanted(m=fake_model(listen="port", phases=False, health=health)))
            lease = await supervisor.acquire("m", 90)
            assert lease.socket is None and lease.base_url.startswith("http://127.0.0.1:")
            assert (await ask(lease, "/"))["ok"]
            lease.release()
            assert sockets(run_dir) == []

    run(work())


def test_on_a_fixed_port_the_old_one_ends_before_the_new_one_starts(run_dir: Path) -> None:
    async def work() -> None:
        port = free_port()
        async with supervising(run_dir) as supervisor:
            await supervisor.apply(wanted(m=fake_model(fixed_port=port)))
            (await supervisor.acquire("m", 90)).release()
            assert not is_free(port)
            (old,) = supervisor.pids()
            await supervisor.apply(wanted(m=fake_model("slow=0.1", fixed_port=port)))
            (await supervisor.acquire("m", 90)).release()
            assert supervisor.pids() != [old] and len(supervisor.states()) == 1
            await supervisor.apply(wanted(m=fake_model("slow=0.1", fixed_port=port), n=fake_model(fixed_port=port)))
            with pytest.raises(UnavailableError, match=f"port {port} is taken"):
                await supervisor.acquire("n", 90)
            assert not any(one.model == "m" and one.state == "crashed" for one in supervisor.seen)

    run(work())


def test_a_command_line_engine_is_supervised_the_same_way(run_dir: Path) -> None:
    async def work() -> None:
        command = Command()
        supervisor = Supervisor(lambda name: command, run_dir, run_dir / "logs", lambda state: None, timing=QUICK)
        await supervisor.start()
        try:
            line = f"python3 {PROGRAM} --port {{port}}"
            model = Model(source="x", engine="command", options={"command": line, "health": "/h", "served_name": "s"})
            await supervisor.apply({"m": (model, ModelFiles("m", Path("/none")))})
            lease = await supervisor.acquire("m", 90)
            assert (lease.served, (await ask(lease, "/"))["probes"]) == ("s", 1)
            lease.release()
        finally:
            await supervisor.stop(0)

    run(work())


def test_a_line_moves_as_fast_as_answers_have_ended_since_all_slots_were_taken() -> None:
    line, ended = Line(), [0.0, 1.0, 2.0]

    def wait(in_flight: int, now: float) -> float:
        return line.wait(in_flight, 4, lambda: ended, now)

    assert wait(3, 3600.0) == 0.0
    assert wait(4, 3600.0) == wait(9, 3600.0) == 0.0, "it has only begun, and who knows how long these answers are"
    assert wait(4, 3630.0) == 30.0 and wait(6, 3630.0) == 90.0, "nothing has ended for half a minute"
    ended += [3631.0, 3632.0, 3633.0]
    assert wait(5, 3640.0) == 2 * 40.0 / 4
    ended[:3] = []
    assert wait(5, 3640.0) == 2 * 9.0 / 3, "what ended before is forgotten"
    assert wait(3, 3650.0) == 0.0
    assert wait(4, 3700.0) == 0.0, "another line"


def test_a_request_that_would_wait_too_long_for_its_turn_is_refused_at_once(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir) as supervisor:
            await supervisor.apply(wanted(m=fake_model(at_once=1)))
            leases = [await supervisor.acquire("m", 90, patience=0.01) for _ in range(2)]
            await asyncio.sleep(0.05)
            with pytest.raises(UnavailableError) as late:
                await supervisor.acquire("m", 90, patience=0.01)
            assert (late.value.status, late.value.code) == (429, "queue_full")
            assert late.value.retry_after is not None and late.value.retry_after >= 1.0
            leases.append(await supervisor.acquire("m", 90))
            for lease in leases:
                lease.release()
            (await supervisor.acquire("m", 0, patience=0.01)).release()

    run(work())
