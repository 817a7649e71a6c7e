"""The real worker under supervision: a small model is loaded, killed, and ready again."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import aiohttp
import pytest

import lumen
from lumen.config.schema import Model
from lumen.engines.base import ModelFiles
from lumen.engines.registry import engine
from lumen.workers.supervisor import Lease, Supervisor
from tests.workers.supervision import marked, run, sockets, until

MODEL = Path(lumen.__file__).parent / "tiny" / "lumen-tiny.gguf"


async def complete(lease: Lease) -> str:
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(lease.socket))) as session:
        body = {"model": lease.served, "prompt": "Lumen is", "max_tokens": 8, "temperature": 0}
        async with session.post(f"{lease.base_url}/v1/completions", json=body) as answer:
            assert answer.status == 200
            text: str = (await answer.json())["choices"][0]["text"]
            return text


@pytest.mark.e2e
@pytest.mark.skipif(engine("llamacpp").missing() is not None, reason="llama-cpp-python is not installed")
def test_killed_it_comes_back_and_answers_the_same(run_dir: Path) -> None:
    async def work() -> None:
        supervisor = Supervisor(engine, run_dir, run_dir / "logs", lambda state: None)
        await supervisor.start()
        try:
            model = Model(source="builtin:tiny", context=512, slots=2, threads=1)
            await supervisor.apply({"tiny": (model, ModelFiles("tiny", MODEL))})
            first = await supervisor.acquire("tiny", 90)
            text = await complete(first)
            assert text
            (state,) = supervisor.states()
            assert (state.state, state.phase, state.engine) == ("ready", "ready", "llamacpp")
            assert state.pid is not None
            os.kill(state.pid, signal.SIGKILL)
            first.release(ok=False)
            await until(lambda: supervisor.states()[0].restarts == 1)
            second = await supervisor.acquire("tiny", 90)
            assert second.socket != first.socket
            assert await complete(second) == text
            second.release(ok=True)
            log = await asyncio.to_thread((run_dir / "logs" / "tiny-0.log").read_text)
            assert "Lumen is" not in log  # no prompts in logs
        finally:
            await supervisor.stop(10)
        assert marked(run_dir) == {}
        assert sockets(run_dir) == []

    run(work(), 110)
