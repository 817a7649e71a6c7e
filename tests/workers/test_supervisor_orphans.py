"""A gateway killed with SIGKILL: what it left is gone after the next start, and nobody else is touched."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from lumen.workers.supervisor import Supervisor
from lumen.workers.sweep import Marks, home_of, of_others, of_run, of_start, sweep
from tests.workers.supervision import QUICK, fake_model, marked, run, sockets, supervising, until, wanted

GATEWAY = """
import asyncio, sys
from pathlib import Path
from tests.workers.supervision import *

async def main():
    fake, run_dir = Fake(), Path(sys.argv[1])
    supervisor = Supervisor(lambda name: fake, run_dir, run_dir / "logs", lambda state: None, timing=QUICK)
    await supervisor.start()
    await supervisor.apply(wanted(m=fake_model("family", "stubborn", replicas=2)))
    for _ in range(2):
        await supervisor.acquire("m", 90)
    await until(lambda: all(one.state == "ready" for one in supervisor.states()))
    print("up", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def test_after_kill_9_of_the_gateway_its_engines_are_swept(run_dir: Path) -> None:
    root = str(Path(__file__).parents[2])
    gateway = subprocess.Popen([sys.executable, "-c", GATEWAY, str(run_dir)], stdout=subprocess.PIPE, cwd=root)
    assert gateway.stdout is not None
    with gateway.stdout:
        assert gateway.stdout.readline() == b"up\n"
        gateway.send_signal(signal.SIGKILL)
        gateway.wait(100)
    left = marked(run_dir)
    assert len(left) == 4
    assert len(sockets(run_dir)) == 2

    async def work() -> None:
        async with supervising(run_dir) as supervisor:  # its start is what sweeps
            assert marked(run_dir) == {}
            assert sockets(run_dir) == []
            await supervisor.apply(wanted(m=fake_model()))
            (await supervisor.acquire("m", 90)).release()

    run(work())


def test_two_installations_do_not_touch_each_other(run_dir: Path, tmp_path: Path) -> None:
    async def work() -> None:
        async with supervising(run_dir) as one:
            await one.apply(wanted(m=fake_model()))
            (await one.acquire("m", 90)).release()
            pids = one.pids()
            other = Supervisor(lambda name: one.engine, tmp_path, tmp_path, lambda state: None, timing=QUICK)
            await other.start()
            await other.stop(0)
            await asyncio.sleep(0)
            assert one.pids() == pids
            assert all(psutil.pid_exists(pid) for pid in pids)
            assert one.count("ready") == 1

    run(work())


def test_marks_tell_starts_runs_and_installations_apart() -> None:
    mine, start = Marks("home", "run"), Marks("home", "run", "m:0:1")
    name = start.environment()["LUMEN_REPLICA"]
    assert name == "run:m:0:1"
    assert of_start(start)("home", name)
    assert not of_start(start)("home", "run:m:0:12")
    assert not of_start(start)("elsewhere", name)
    assert of_run(mine)("home", name)
    assert not of_run(mine)("home", "running:m:0:1")
    assert not of_run(mine)("elsewhere", name)
    assert of_others(mine)("home", "earlier:m:0:1")
    assert not of_others(mine)("home", name)
    assert not of_others(mine)("elsewhere", "earlier:m:0:1")


def test_a_process_that_keeps_forking_is_swept_too(run_dir: Path) -> None:
    forks = (
        "import os, time\nfor _ in range(3000):\n    time.sleep(0.001)\n    if os.fork(): os._exit(0)\ntime.sleep(60)"
    )
    marks = Marks(home_of(run_dir), "run", "m:0:1")
    child = subprocess.Popen([sys.executable, "-c", forks], env=marks.environment(), start_new_session=True)
    killed, gone = sweep(of_start(marks), 100.0)
    child.wait(100)
    assert gone and killed
    assert marked(run_dir) == {}


@pytest.mark.parametrize("moment", [0.0, 0.02, 0.1])
def test_stopping_in_the_middle_of_a_start_leaves_nothing(run_dir: Path, moment: float) -> None:
    async def work() -> None:
        async with supervising(run_dir) as supervisor:
            await supervisor.apply(wanted(m=fake_model("family", replicas=3)))
            await asyncio.sleep(moment)

    run(work())


def test_under_uvloop_too(run_dir: Path) -> None:
    import uvloop

    async def work() -> None:
        # libuv opens one spare descriptor for itself with a loop's first stream.
        reads, writes = os.pipe()
        os.close(writes)
        pipe = os.fdopen(reads, "rb", buffering=0)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(asyncio.Protocol, pipe)
        transport.close()
        async with supervising(run_dir) as supervisor:
            await supervisor.apply(wanted(m=fake_model("family", "noisy")))
            (await supervisor.acquire("m", 90)).release()
            (pid,) = supervisor.pids()
            psutil.Process(pid).kill()
            await until(lambda: supervisor.pids() not in ([], [pid]))

    uvloop.run(asyncio.wait_for(work(), 100))
