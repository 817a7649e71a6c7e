"""The vLLM engine under the supervisor, before a server that says what vLLM says. For the real one see tests/vllm."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lumen.config.schema import Model
from lumen.engines.base import ModelFiles, Request
from lumen.engines.registry import engine
from lumen.engines.vllm import ENGINE
from lumen.hardware.machine import GIB, Gpu, Hardware
from lumen.workers.supervisor import Lease, ReplicaState, Supervisor
from tests.engines.vllm_home import environment_at
from tests.workers.supervision import marked, run, slower, until

CARD = Gpu(0, "nvidia", "NVIDIA H100", 80 * GIB, 79 * GIB, "580.65", "9.0")
MACHINE = Hardware("linux", "x86_64", "a CPU", 4, 8, 16 * GIB, 8 * GIB, gpus=(CARD,))


class Home:
    def __init__(self, supervisor: Supervisor, seen: list[ReplicaState], run_dir: Path) -> None:
        self.supervisor = supervisor
        self.seen = seen
        self.run_dir = run_dir

    @property
    def one(self) -> ReplicaState:
        (found,) = self.supervisor.states()
        return found

    async def ready(self) -> None:
        await until(lambda: self.one.state == "ready")

    async def lease(self) -> Lease:
        return await self.supervisor.acquire("m", 90)


@asynccontextmanager
async def serving(folder: Path, monkeypatch: pytest.MonkeyPatch, modes: str = "", **model: Any) -> AsyncIterator[Home]:
    monkeypatch.setenv("LUMEN_VLLM", str(environment_at(folder / "env", "vllm", modes=modes)))
    made = folder / "model"
    made.mkdir()
    config = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 64, "max_position_embeddings": 4096}
    (made / "config.json").write_text(json.dumps(config))
    files = ModelFiles("m", made)
    settled = ENGINE.settle(files, Model(source="x", engine="vllm", **model), MACHINE)
    seen: list[ReplicaState] = []
    timing = slower(follow=0.01, backoff=0.1)
    supervisor = Supervisor(engine, folder / "run", folder / "logs", seen.append, timing=timing)
    await supervisor.start()
    try:
        await supervisor.apply({"m": (settled, files)})
        yield Home(supervisor, seen, folder / "run")
    finally:
        await supervisor.stop(0.0)
    assert marked(folder / "run") == {}


async def call(lease: Lease, request: Request) -> Any:
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(lease.socket))) as session,
        session.request(request.method, lease.base_url + request.path) as answer,
    ):
        assert answer.status == 200
        return json.loads(await answer.read())


def test_its_log_tells_how_far_the_start_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async with serving(tmp_path, monkeypatch) as home:
            await home.ready()
            await until(lambda: home.one.phase == "warm")
            words = await call(await home.lease(), Request("GET", "/words"))
            assert "--max-model-len=4096" in words and "--enable-sleep-mode" in words

    run(work())


def test_want_of_memory_is_answered_once_with_less_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        # The recorded failure says that 768 tokens would fit.
        async with serving(tmp_path, monkeypatch, "full=1000") as home:
            await home.ready()
            assert home.one.restarts == 1
            words = await call(await home.lease(), Request("GET", "/words"))
            assert "--max-model-len=768" in words

    run(work())


def test_a_second_want_of_memory_is_told_and_no_less_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async with serving(tmp_path, monkeypatch, "full=100") as home:
            await until(lambda: home.one.restarts >= 2 and "memory" in (home.one.why or "") and home.one.lines)
            why, lines = home.one.why or "", home.one.lines
            assert why.startswith(
                "its engine ran out of memory while starting with a context of 768 tokens: ValueError"
            )
            assert "larger than the available KV cache memory" in lines[-1]
            log = (tmp_path / "logs" / "m-0.log").read_text()
            assert log.count("ValueError: To serve") >= 4

    run(work())


def test_an_end_that_nobody_asked_for_is_a_crash_also_with_status_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with serving(tmp_path, monkeypatch, "orphan") as home:
            await home.ready()
            before = home.one.pid
            assert len(marked(home.run_dir)) == 2
            await call(await home.lease(), Request("POST", "/end"))
            await until(lambda: any("ended by itself with status 0" in (one.why or "") for one in home.seen))
            await until(lambda: home.one.state == "ready" and home.one.pid != before)
            assert home.one.restarts == 1
            # The child of the first start went with it.
            assert len(marked(home.run_dir)) == 2
            assert home.one.pid is not None
            os.kill(home.one.pid, signal.SIGKILL)
            await until(lambda: home.one.restarts == 2)

    run(work())


def test_it_sleeps_and_wakes_by_the_calls_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async with serving(tmp_path, monkeypatch) as home:
            await home.ready()
            sleeping = ENGINE.launch(
                ModelFiles("m", tmp_path), Model(source="x", options={"enable_sleep_mode": True}), place(tmp_path)
            ).sleeping
            assert sleeping is not None
            lease = await home.lease()
            for request, asleep in ((sleeping.sleep, True), (sleeping.wake, False)):
                await call(lease, request)
                assert await call(lease, sleeping.asleep) == {"is_sleeping": asleep}

    run(work())


def test_one_that_is_killed_while_it_sleeps_is_not_taken_for_a_failed_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with serving(tmp_path, monkeypatch) as home:
            await home.ready()
            with (tmp_path / "logs" / "m-0.log").open("a") as log:
                log.write("torch.OutOfMemoryError: CUDA out of memory.\n")  # of some request, long ago
            home.supervisor.sleep("m")
            await until(lambda: home.one.state == "asleep")
            assert home.one.pid is not None
            os.kill(home.one.pid, signal.SIGKILL)
            await until(lambda: home.one.restarts == 1)
            assert home.one.why == "its engine was killed by SIGKILL"
            assert "--max-model-len=4096" in await call(await home.lease(), Request("GET", "/words"))

    run(work())


def place(folder: Path) -> Any:
    from lumen.engines.base import Place

    return Place(folder / "s", 1)


def test_stopping_leaves_no_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async with serving(tmp_path, monkeypatch, "orphan") as home:
            await home.ready()
            assert len(marked(home.run_dir)) == 2
            await asyncio.wait_for(home.supervisor.stop(5.0), 100)
            assert marked(home.run_dir) == {}

    run(work())
