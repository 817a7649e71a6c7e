"""A model is changed under running streams: real workers, no answer is lost, and new ones go to the new process."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest

import lumen
from lumen.config.schema import Model
from lumen.engines.base import ModelFiles
from lumen.engines.registry import engine
from lumen.workers.supervisor import Supervisor
from tests.workers.supervision import marked, run, sockets, until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(engine("llamacpp").missing() is not None, reason="llama-cpp-python is not installed"),
]
FILES = ModelFiles("tiny", Path(lumen.__file__).parent / "tiny" / "lumen-tiny.gguf")


async def stream(supervisor: Supervisor, tokens: int) -> tuple[str, int]:
    """One streamed answer, whole; which socket it came over, and how many pieces it had."""
    lease = await supervisor.acquire("tiny", 90)
    ok = False
    try:
        body = {"model": lease.served, "prompt": "Lumen is", "max_tokens": tokens, "ignore_eos": True, "stream": True}
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(lease.socket))) as session,
            session.post(lease.base_url + "/v1/completions", json=body) as answer,
        ):
            assert answer.status == 200
            events = [line async for line in answer.content if line.startswith(b"data: ")]
        assert events[-1] == b"data: [DONE]\n"
        assert b'"finish_reason":"length"' in events[-2]
        ok = True
        return str(lease.socket), len(events) - 2
    finally:
        lease.release(ok)


@pytest.mark.parametrize("change", ["parameters", "restart"])
def test_no_stream_is_dropped_while_a_model_is_changed(run_dir: Path, change: str) -> None:
    async def work() -> None:
        supervisor = Supervisor(engine, run_dir, run_dir / "logs", lambda state: None)
        await supervisor.start()
        try:
            await supervisor.apply({"tiny": (Model("x", slots=4, threads=1, context=1024), FILES)})
            first = await supervisor.acquire("tiny", 90)
            old = str(first.socket)
            first.release(True)
            changing, answers = True, list[tuple[str, int]]()

            async def client(tokens: int) -> None:
                while changing:
                    answers.append(await stream(supervisor, tokens))

            clients = [asyncio.create_task(client(tokens)) for tokens in (10, 60, 250)]
            await until(lambda: len(answers) > 1)
            if change == "restart":
                await supervisor.restart("tiny")
            else:
                await supervisor.apply({"tiny": (Model("x", slots=4, threads=1, context=512), FILES)})
            await until(lambda: answers[-1][0] != old, 60)
            await until(lambda: len(supervisor.states()) == 1, 60)
            changing = False
            await asyncio.gather(*clients)
            assert {socket for socket, _ in answers} == {old, answers[-1][0]}
            assert answers[-1][0] != old
            (state,) = supervisor.states()
            assert (state.state, state.restarts) == ("ready", 0)
        finally:
            await supervisor.stop(10)
        assert marked(run_dir) == {} and sockets(run_dir) == []

    run(work(), 110)
