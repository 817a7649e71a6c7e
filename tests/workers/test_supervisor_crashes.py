"""What becomes of a replica that dies, hangs, never comes up or does not want to go."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import aiohttp
import psutil
import pytest

from lumen.core.errors import UnavailableError
from tests.workers.supervision import ask, fake_model, marked, run, slower, supervising, until, wanted


def test_it_is_ready_only_after_an_inference_and_tells_its_phases(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir) as supervisor:
            await supervisor.apply(wanted(m=fake_model("noisy")))
            lease = await supervisor.acquire("m", 90)
            assert (await ask(lease, "/"))["probes"] >= 1
            (state,) = supervisor.states()
            assert (state.state, state.phase, state.restarts, state.in_flight) == ("ready", "ready", 0, 1)
            lease.release()
            lease.release()
            assert supervisor.states()[0].in_flight == 0
            assert (lease.model, lease.replica, lease.served) == ("m", 0, "m")
            assert [one.state for one in supervisor.seen] == ["waiting", "starting", "probing", "ready"]
            assert (run_dir / "logs" / "m-0.log").read_text() == "fake worker starts\n"
        assert [one.state for one in supervisor.seen][-2:] == ["draining", "off"]

    run(work())


def test_kill_9_restarts_it_after_a_pause_that_grows(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir) as supervisor:
            await supervisor.apply(wanted(m=fake_model()))
            old = []
            for restarts in range(3):
                (await supervisor.acquire("m", 90)).release()
                (state,) = supervisor.states()
                assert (state.state, state.restarts) == ("ready", restarts)
                assert state.pid is not None and state.pid not in old
                old.append(state.pid)
                os.kill(state.pid, signal.SIGKILL)
                await until(lambda: not supervisor.count("ready"))
            crashed = [one for one in supervisor.seen if one.state == "crashed"]
            assert {one.why for one in crashed} == {"its engine was killed by SIGKILL"}
            await until(lambda: supervisor.count("ready"))
            assert supervisor.states()[0].why is None

    run(work())


def test_an_exit_with_status_0_is_a_crash_too(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir) as supervisor:
            await supervisor.apply(wanted(m=fake_model()))
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await ask(await supervisor.acquire("m", 90), "/exit", "POST")
            await until(lambda: any(one.state == "crashed" for one in supervisor.seen))
            crashed = next(one for one in supervisor.seen if one.state == "crashed")
            assert crashed.why == "its engine ended by itself with status 0"
            # The lease on the dead process does not weigh on its successor.
            await until(lambda: supervisor.count("ready"))
            assert supervisor.states()[0].in_flight == 0

    run(work())


@pytest.mark.parametrize(("mode", "status"), [("crash", 3), ("exit0", 0)])
def test_one_that_never_comes_up_is_told_at_once(run_dir: Path, mode: str, status: int) -> None:
    async def work() -> None:
        async with supervising(run_dir) as supervisor:
            await supervisor.apply(wanted(m=fake_model(mode)))
            with pytest.raises(UnavailableError) as waited:
                await supervisor.acquire("m", 3600)  # woken by the third failure, not by its own limit
            with pytest.raises(UnavailableError) as told:
                await supervisor.acquire("m", 3600)
            for error in (waited.value, told.value):
                assert (error.status, error.code) == (503, "model_not_ready")
                assert f"cannot be started: its engine ended by itself with status {status}." in error.message
                assert error.retry_after is not None and error.retry_after >= 1
            lines = next(one.lines for one in supervisor.states())
            assert lines[-1] == ("out of luck" if mode == "crash" else "fake worker starts")

    run(work())


def test_one_that_fails_twice_and_then_comes_up_serves_who_waited(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir) as supervisor:
            await supervisor.apply(wanted(m=fake_model(f"crashes=2:{run_dir / 'count'}")))
            lease = await supervisor.acquire("m", 90)
            assert supervisor.states()[0].restarts == 2
            lease.release()

    run(work())


def test_deaf_from_the_start_it_is_late_and_started_anew(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir, slower(first_probe=0.2)) as supervisor:
            await supervisor.apply(wanted(m=fake_model("deaf", start_timeout=6)))
            await until(lambda: any(one.restarts == 1 for one in supervisor.states()))
            crashed = next(one for one in supervisor.seen if one.state == "crashed")
            assert crashed.why is not None
            assert crashed.why.startswith("its engine was not ready after 6 s (phase ready); it did not answer")
            assert not any(one.state == "ready" for one in supervisor.seen)

    run(work())


def test_an_answer_that_is_an_error_is_no_readiness(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir) as supervisor:
            await supervisor.apply(wanted(m=fake_model("wrong", start_timeout=6)))
            await until(lambda: supervisor.count("crashed"))
            assert "status 500" in str(supervisor.states()[0].why)

    run(work())


def test_a_hang_while_idle_is_found_and_mended(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir, slower(watch=0.2)) as supervisor:
            await supervisor.apply(wanted(m=fake_model()))
            lease = await supervisor.acquire("m", 90)
            await ask(lease, "/deaf", "POST")
            (pid,) = supervisor.pids()
            await asyncio.sleep(2.0)
            assert supervisor.pids() == [pid]  # busy, and no request on it failed: not judged
            lease.release()
            await until(lambda: supervisor.pids() not in ([], [pid]))
            assert any("hung: it did not answer a probe" in str(one.why) for one in supervisor.seen)

    run(work())


def test_a_hang_of_a_busy_one_is_found_once_a_request_failed(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir) as supervisor:
            await supervisor.apply(wanted(m=fake_model()))
            stays, fails = await supervisor.acquire("m", 90), await supervisor.acquire("m", 90)
            await ask(stays, "/deaf", "POST")
            (pid,) = supervisor.pids()
            fails.release(ok=False)
            await until(lambda: supervisor.pids() not in ([], [pid]))
            stays.release()

    run(work())


def test_a_suspect_that_answers_is_cleared(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir, slower(watch_limit=10.0)) as supervisor:
            await supervisor.apply(wanted(m=fake_model()))
            lease = await supervisor.acquire("m", 90)
            before = (await ask(lease, "/"))["probes"]
            (pid,) = supervisor.pids()
            (await supervisor.acquire("m", 1)).release(ok=False)
            async with asyncio.timeout(100):
                while (await ask(lease, "/"))["probes"] == before:
                    await asyncio.sleep(0.01)
            assert supervisor.pids() == [pid]
            lease.release()

    run(work())


def test_one_that_ignores_sigterm_is_killed_after_its_grace(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir) as supervisor:
            await supervisor.apply(wanted(m=fake_model("stubborn", grace=0.5)))
            (await supervisor.acquire("m", 90)).release()
            start = time.monotonic()
            await supervisor.stop(3600)
            assert time.monotonic() - start >= 0.5

    run(work())


def test_a_polite_one_ends_at_once_and_a_second_stop_hurries_the_first(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir) as supervisor:
            await supervisor.apply(wanted(m=fake_model(grace=3600), n=fake_model("stubborn", grace=3600)))
            (await supervisor.acquire("m", 90)).release()
            (await supervisor.acquire("n", 90)).release()
            stopping = asyncio.create_task(supervisor.stop(3600))
            await until(lambda: supervisor.count("draining", "n") and not supervisor.count("draining", "m"))
            await supervisor.stop(0)
            await stopping

    run(work())


def test_stopping_lets_answers_finish_first(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir) as supervisor:
            await supervisor.apply(wanted(m=fake_model()))
            lease = await supervisor.acquire("m", 90)
            stopping = asyncio.create_task(supervisor.stop(20))
            await until(lambda: supervisor.count("draining"))
            with pytest.raises(UnavailableError):
                await supervisor.acquire("m", 5)
            assert (await ask(lease, "/"))["ok"]
            lease.release()
            await stopping

    run(work())


@pytest.mark.parametrize("end", ["crash", "stop"])
def test_grandchildren_do_not_outlive_it(run_dir: Path, end: str) -> None:
    async def work() -> None:
        async with supervising(run_dir) as supervisor:
            await supervisor.apply(wanted(m=fake_model("family")))
            (await supervisor.acquire("m", 90)).release()
            (pid,) = supervisor.pids()
            # A child that is being started shows no environment for a moment.
            await until(lambda: len(marked(run_dir)) == 2)
            family = marked(run_dir)
            assert pid in family
            if end == "stop":
                await supervisor.stop(5)
                assert marked(run_dir) == {}
                return
            os.kill(pid, signal.SIGKILL)
            await until(lambda: supervisor.pids() not in ([], [pid]))
            assert not set(family) & set(marked(run_dir))

    run(work())


def test_a_program_that_is_not_there_or_an_engine_that_misses_something(run_dir: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir) as supervisor:
            await supervisor.apply(wanted(m=fake_model(program="/no/such/program")))
            with pytest.raises(UnavailableError, match=r"cannot be started: its engine cannot be started\.$"):
                await supervisor.acquire("m", 90)
            assert "No such file" in str(supervisor.states()[0].why)
            supervisor.engine.absent = "vapour is not installed; run ./install.sh"
            await supervisor.apply(wanted(n=fake_model()))
            with pytest.raises(UnavailableError, match=r"vapour is not installed; run \./install\.sh"):
                await supervisor.acquire("n", 90)

    run(work())


def test_engines_do_not_see_hidden_variables_and_number_cards_by_bus(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VENDOR_KEY", "secret")
    monkeypatch.setenv("VENDOR_NAME", "shown")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")

    async def work() -> None:
        async with supervising(run_dir, hidden=["VENDOR_KEY"]) as supervisor:
            await supervisor.apply(wanted(m=fake_model()))
            (await supervisor.acquire("m", 90)).release()
            environment = psutil.Process(supervisor.pids()[0]).environ()
            assert "VENDOR_KEY" not in environment
            assert environment["VENDOR_NAME"] == "shown"
            assert environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID", "as the cards it is given are numbered"

    run(work())
