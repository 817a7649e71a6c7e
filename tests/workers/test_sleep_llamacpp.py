"""The real worker asleep: its cells and buffers are given back, its prefixes are not lost, and it answers as before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

import lumen
from lumen.config.schema import Model
from lumen.engines.base import ModelFiles
from lumen.engines.registry import engine
from lumen.workers.supervisor import Lease, Supervisor
from tests.workers.supervision import marked, run, sockets, until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(engine("llamacpp").missing() is not None, reason="llama-cpp-python is not installed"),
]
TINY = Path(lumen.__file__).parent / "tiny" / "lumen-tiny.gguf"
PROMPT = "Lumen is a gateway that serves language models on one machine and elsewhere. " * 12


async def call(lease: Lease, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(lease.socket))) as session,
        session.post(lease.base_url + path, json=body) as answer,
    ):
        return answer.status, json.loads(await answer.read())


async def complete(lease: Lease) -> tuple[str, int]:
    """The text, and how much of the prompt was there already."""
    body = {"model": lease.served, "prompt": PROMPT, "max_tokens": 8, "temperature": 0}
    status, said = await call(lease, "/v1/completions", body)
    assert status == 200
    return said["choices"][0]["text"], said["usage"]["prompt_tokens_details"]["cached_tokens"]


def test_it_sleeps_wakes_and_answers_the_same_without_computing_its_prompt_again(run_dir: Path) -> None:
    async def work() -> None:
        supervisor = Supervisor(engine, run_dir, run_dir / "logs", lambda state: None)
        await supervisor.start()
        try:
            says = Model("x", slots=8, threads=1, keep_alive=0.1, idle_after=600.0, min_residency=0.0)
            await supervisor.apply({"tiny": (says, ModelFiles("tiny", TINY))})
            assert supervisor.states() == [] and supervisor.standings()["tiny"].resting
            lease = await supervisor.acquire("tiny", 90)
            assert lease.woke > 0
            (state,) = supervisor.states()
            assert state.pid is not None
            text, cached = await complete(lease)
            assert cached == 0
            awake = psutil.Process(state.pid).memory_info().rss
            lease.release(True)
            await until(lambda: supervisor.states()[0].state == "asleep")
            assert psutil.Process(state.pid).memory_info().rss < 0.8 * awake
            lease = await supervisor.acquire("tiny", 90)
            assert lease.woke > 0
            again, cached = await complete(lease)
            assert again == text and cached > 100
            assert supervisor.states()[0].pid == state.pid
            lease.release(True)
        finally:
            await supervisor.stop(10)
        assert marked(run_dir) == {} and sockets(run_dir) == []

    run(work(), 110)


def test_a_busy_one_does_not_sleep_and_a_sleeper_that_is_asked_wakes_by_itself(run_dir: Path) -> None:
    async def work() -> None:
        supervisor = Supervisor(engine, run_dir, run_dir / "logs", lambda state: None)
        await supervisor.start()
        try:
            await supervisor.apply({"tiny": (Model("x", slots=2, threads=1), ModelFiles("tiny", TINY))})
            lease = await supervisor.acquire("tiny", 90)
            body = {"model": lease.served, "prompt": "a", "max_tokens": 400, "stream": True, "ignore_eos": True}
            connector = aiohttp.UnixConnector(str(lease.socket))
            async with (
                aiohttp.ClientSession(connector=connector) as session,
                session.post(lease.base_url + "/v1/completions", json=body) as stream,
            ):
                await stream.content.readline()
                assert (await call(lease, "/sleep"))[0] == 409
            async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(lease.socket))) as session:
                # The cancelled answer leaves at the engine's next step.
                await until_ok(session, lease)
                async with session.get(lease.base_url + "/is_sleeping") as answer:
                    assert await answer.json() == {"is_sleeping": True}
            text, _ = await complete(lease)
            assert text
            assert await call(lease, "/wake") == (200, {"is_sleeping": False})
            status, said = await call(lease, "/v1/embeddings", {"model": lease.served, "input": "a"})
            assert status == 200 and said["data"]
            lease.release(True)
        finally:
            await supervisor.stop(10)

    run(work(), 110)


async def until_ok(session: aiohttp.ClientSession, lease: Lease) -> None:
    for _ in range(200):
        async with session.post(lease.base_url + "/sleep") as answer:
            if answer.status == 200:
                return
    raise AssertionError("it never slept")
