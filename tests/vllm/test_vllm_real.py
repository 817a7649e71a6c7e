"""A real vLLM under Lumen's supervision: its start as it tells it, answers that are cut off, orphans, memory."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections import Counter
from collections.abc import Coroutine
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from msgspec.structs import replace as replace_

from lumen.config.schema import Model
from lumen.engines.base import ModelFiles
from lumen.engines.registry import engine
from lumen.engines.vllm import ENGINE
from lumen.hardware import detect
from lumen.providers.base import Capabilities
from lumen.providers.vllm import make
from lumen.tiny import MODEL
from lumen.wire.call import chat_call
from lumen.wire.requests import ChatRequest, Message
from lumen.workers.supervisor import ReplicaState, Supervisor, Timing
from tests.e2e.cut_box import box, every
from tests.e2e.cuts import ASKED, STORY
from tests.vllm.hugging_face import write

missing = ENGINE.missing()
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(missing is not None, reason=str(missing)),
    pytest.mark.timeout(1800),
]

# In float32 two batch shapes nearly always agree on the most likely token. Eager: starts without compiling.
OPTIONS: dict[str, Any] = {"dtype": "float32", "enforce_eager": True}
JSON = {"Content-Type": "application/json"}
# The tiny model's two ends of an answer.
NEVER_ENDING = {"0": -100, "2": -100}
CAN = Capabilities(local=True, reasoning_content=True)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 1500))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return ModelFiles("tiny", write(MODEL, tmp_path_factory.mktemp("model")))


def settled(files: ModelFiles, context: int = 1024, **options: Any) -> Model:
    asked = Model(source="x", engine="vllm", context=context, slots=4, threads=1, options={**OPTIONS, **options})
    return ENGINE.settle(files, asked, detect())


def able(model: Model) -> Capabilities:
    told = {name: value for name, value in asdict(ENGINE.abilities(model)).items() if value is not None}
    return replace(CAN, **told)


@pytest.mark.parametrize("speculation", ["ngram", "none"])
def test_greedy_text_goes_on_in_the_other_replica_by_its_token_ids(
    files: ModelFiles, tmp_path: Path, speculation: str
) -> None:
    """Cut behind every third event, by aborting the connection; then twice by kill -9 of the server at work."""
    guessing = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 4, "prompt_lookup_min": 2}
    model = settled(files, **({"speculative_config": guessing} if speculation == "ngram" else {}))

    async def work() -> None:
        async with box(tmp_path, 2, (model, files), able(model)) as one:
            unbroken = await one.ask("default", ASKED["greedy"])
            events = len(unbroken.deltas)
            rungs = []
            equal = 0
            for after in every(3)(events):
                answer = await one.ask("default", ASKED["greedy"], after)
                equal += (answer.said, answer.count) == (unbroken.said, unbroken.count)
                rungs += answer.rungs
            cuts = len(list(every(3)(events)))
            told = f"{unbroken.count} tokens in {events} events, {cuts} cuts, {equal} equal, {Counter(rungs)}"
            logging.getLogger(__name__).info("%s: %s", speculation, told)
            assert equal == cuts
            assert rungs.count("token-exact") > len(rungs) * 0.5 and set(rungs) <= {"token-exact", "replay-exact"}
            for after in (2, events // 2):
                answer = await one.ask("default", ASKED["greedy"], after, kill=True)
                assert (answer.said, answer.count) == (unbroken.said, unbroken.count)
                assert len(answer.rungs) == 1

    run(work())
    assert not orphans(tmp_path)


def orphans(folder: Path) -> list[int]:
    from tests.workers.supervision import marked

    return list(marked(folder / "run"))


def test_one_replica_alone_goes_on_by_itself_and_what_keeps_state_is_answered_whole(
    files: ModelFiles, tmp_path: Path
) -> None:
    model = settled(files)

    async def work() -> None:
        async with box(tmp_path, 1, (model, files), able(model)) as one:
            for name in ("greedy", "characters of several bytes", "with stop strings"):
                body = {**ASKED[name], "temperature": 0, "seed": None}
                unbroken = await one.ask("default", body)
                for after in every(7)(len(unbroken.deltas)):
                    answer = await one.ask("default", body, after)
                    assert answer.said == unbroken.said, (name, after, answer.rungs)
            # Without seed or state of a sampler the text goes on as another draw, but not a token of it is lost.
            sampled = {**STORY, "temperature": 0.8, "top_p": 0.9}
            whole = await one.ask("default", sampled)
            for after in every(11)(len(whole.deltas) // 2):
                answer = await one.ask("default", sampled, after)
                assert set(answer.rungs) <= {"token-exact"}

    run(work())


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Home:
    """A supervisor with one model."""

    def __init__(self, folder: Path) -> None:
        self.seen: list[ReplicaState] = []
        self.folder = folder
        self.supervisor = Supervisor(
            engine, folder / "run", folder / "logs", self.seen.append, timing=Timing(backoff=0.05)
        )

    async def apply(self, model: Model, files: ModelFiles) -> None:
        await self.supervisor.start()
        await self.supervisor.apply({"tiny": (model, files)})

    async def until(self, state: str, phases: set[str] | None = None) -> ReplicaState:
        async with asyncio.timeout(400):
            while True:
                (one,) = self.supervisor.states()
                if phases is not None and one.phase:
                    phases.add(one.phase)
                if one.state == state:
                    return one
                await asyncio.sleep(0.05)


def test_its_start_is_told_phase_by_phase_and_nothing_is_left_of_it(files: ModelFiles, tmp_path: Path) -> None:
    async def work() -> None:
        home = Home(tmp_path)
        phases: set[str] = set()
        try:
            await home.apply(settled(files), files)
            one = await home.until("ready", phases)
            assert {"start", "load", "memory"} <= phases
            assert one.pid is not None
            # The server is killed, and its engine and workers would go on holding their memory.
            family = psutil.Process(one.pid).children(recursive=True)
            assert len(family) >= 2
            os.kill(one.pid, signal.SIGKILL)
            await home.until("crashed")
            await home.until("starting")
            async with asyncio.timeout(10):
                # A killed process takes a moment to give its memory back.
                while any(alive(process) for process in family):
                    await asyncio.sleep(0.02)
        finally:
            await home.supervisor.stop(0.0)
        assert not orphans(tmp_path)

    run(work())


def test_a_context_that_does_not_fit_is_shortened_once(files: ModelFiles, tmp_path: Path) -> None:
    async def work() -> None:
        home = Home(tmp_path)
        try:
            # Room for 1,000 tokens: four layers, two heads of 64, keys and values of four bytes. In blocks of 128 and
            # with one that vLLM keeps for itself these are 768.
            small = settled(files, context=4096, kv_cache_memory_bytes=1000 * 4 * 2 * 2 * 64 * 4)
            await home.apply(small, files)
            await home.until("crashed")
            async with asyncio.timeout(10):
                while "memory" not in (home.supervisor.states()[0].why or ""):
                    await asyncio.sleep(0.01)
            why = home.supervisor.states()[0].why or ""
            assert why.startswith("its engine ran out of memory while starting with a context of 4096 tokens:")
            ready = await home.until("ready")
            assert ready.restarts == 1
            log = (tmp_path / "logs" / "tiny-0.log").read_text("utf-8", "replace")
            assert "Using max model len 768" in log
        finally:
            await home.supervisor.stop(0.0)

    run(work())


def test_what_one_key_had_computed_serves_no_other(files: ModelFiles, tmp_path: Path) -> None:
    model = settled(files)
    dialect = make(able(model))
    asked = Message(role="user", content="A fox and a hen went to sea. " * 20)
    request = ChatRequest(model="x", messages=[asked], max_tokens=2)

    async def work() -> None:
        home = Home(tmp_path)
        try:
            await home.apply(model, files)
            await home.until("ready")
            lease = await home.supervisor.acquire("tiny", 10)

            async def cached(salt: str) -> int:
                made = dialect.encode(replace_(chat_call(request), salt=salt), lease.served, None)
                async with (
                    aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(lease.socket))) as session,
                    session.post(f"http://x/v1/{made.path}", data=made.body, headers=JSON) as answer,
                ):
                    told = await answer.json(content_type=None)
                    assert answer.status == 200, told
                    return int((told["usage"]["prompt_tokens_details"] or {}).get("cached_tokens") or 0)

            assert await cached("one") == 0
            assert await cached("one") > 0
            assert await cached("other") == 0
            lease.release()
        finally:
            await home.supervisor.stop(0.0)

    run(work())


def test_a_model_that_could_write_makes_embeddings(files: ModelFiles, tmp_path: Path) -> None:
    asked = Model(
        source="x", engine="vllm", context=512, slots=4, threads=1, embedding=True, pooling="mean", options=OPTIONS
    )
    model = ENGINE.settle(files, asked, detect())

    async def work() -> None:
        home = Home(tmp_path)
        try:
            await home.apply(model, files)
            await home.until("ready")
            log = (tmp_path / "logs" / "tiny-0.log").read_text("utf-8", "replace")
            assert "MEAN" in log
        finally:
            await home.supervisor.stop(0.0)

    run(work())


def test_of_those_that_wait_the_higher_class_goes_first(files: ModelFiles, tmp_path: Path) -> None:
    model = settled(files, max_num_seqs=1)
    dialect = make(able(model))
    told = [Message(role="user", content="A story.")]

    async def work() -> None:
        home, order = Home(tmp_path), list[int]()
        try:
            await home.apply(model, files)
            await home.until("ready")
            lease = await home.supervisor.acquire("tiny", 10)
            async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(lease.socket))) as session:

                async def ask(rank: int, tokens: int = 4) -> None:
                    request = ChatRequest(model="x", messages=told, max_tokens=tokens, logit_bias=NEVER_ENDING)
                    made = dialect.encode(replace_(chat_call(request), rank=rank), lease.served, None)
                    async with session.post(f"http://x/v1/{made.path}", data=made.body, headers=JSON) as answer:
                        assert answer.status == 200, await answer.read()
                        order.append(rank)

                tasks = [asyncio.create_task(ask(0, 900))]
                for rank in (-1, 1):
                    # The engine takes requests in as they come, between two steps.
                    await asyncio.sleep(0.5)
                    tasks.append(asyncio.create_task(ask(rank)))
                await asyncio.sleep(0.5)
                assert not tasks[0].done(), "it was to take longer than the others take to get in line"
                await asyncio.gather(*tasks)
            # One that goes before all may even take the turn of the one that has it.
            assert order.index(1) < order.index(-1)
            lease.release()
        finally:
            await home.supervisor.stop(0.0)

    run(work())
