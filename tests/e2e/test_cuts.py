"""Real answers of the real engine, cut at every position: the client must have one whole answer all the same.

The default run samples the positions; `LUMEN_ALL_CUTS=1` takes all of them. Figures are printed (`pytest -s`).
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from lumen.config.schema import Config, Model, Route, Server, Target, Timeouts
from lumen.core.errors import BrokenError
from lumen.core.money import FREE
from lumen.engines.base import ModelFiles
from lumen.engines.registry import engine
from lumen.gateway import app
from lumen.gateway.access import AccessLog
from lumen.gateway.billing import Billing
from lumen.gateway.health import Health
from lumen.gateway.http import Ingress
from lumen.gateway.state import State
from lumen.gateway.tab import Offer
from lumen.gateway.table import Origin, Origins, Table
from lumen.gateway.upstream import Encode, Exchange, Limits, Local
from lumen.providers.base import Capabilities, Dialect, HttpCall, module
from lumen.tiny import MODEL
from lumen.workers.supervisor import Supervisor

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.xdist_group("e2e-cuts"),
    pytest.mark.timeout(1800),
    pytest.mark.skipif(engine("llamacpp").missing() is not None, reason="llama-cpp-python is not installed"),
]
ALL = bool(os.environ.get("LUMEN_ALL_CUTS"))
TOKENS = 200
WHOLE = TOKENS + 50
CAN = Capabilities(local=True, token_ids=True, prefill="continue")


class Cut(Exchange):
    """An exchange whose connection is aborted behind its k-th event; or then `kill` is called, and it reads on."""

    def __init__(self, inner: Exchange, after: int, kill: Callable[[], None] | None) -> None:
        self._inner = inner
        self._left = after
        self._kill = kill

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    @property
    def status(self) -> int:
        return self._inner.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._inner.headers

    def adopt(self) -> None:
        self._inner.adopt()

    async def read(self, first_by: float | None) -> bytes:
        if self._left < 0:
            return await self._inner.read(first_by)
        data = await self._inner.read(first_by) if self._left else b""
        events = data.split(b"\n\n")
        if len(events) - 1 < self._left:
            self._left -= len(events) - 1
            return data
        if self._kill is not None:
            self._left = -1
            self._kill()
            return data
        kept, self._left = events[: self._left], 0
        if not kept:
            raise BrokenError("The connection to the target broke.", phase="stream")
        return b"\n\n".join(kept) + b"\n\n"

    async def refusal(self) -> bytes:
        return await self._inner.refusal()

    def close(self, ok: bool | None) -> None:
        self._inner.close(ok)


class Cutting:
    """A local model whose answers are cut off behind their k-th event, but for those that resume one.

    `other`: where those are given. The replica of an aborted answer computes one more step of it, and a batch of two
    sequences is another shape.
    """

    def __init__(self, inner: Local, after: int, kill: Callable[[], None] | None, other: Local | None = None) -> None:
        self._inner = inner
        self._other = other or inner
        self._after = after
        self._kill = kill

    async def open(self, encode: Encode, model: str, limits: Limits, stream: bool) -> Exchange:
        def encoded(served: str) -> HttpCall:
            # From nothing: what was computed before, in other shapes, would change the last bits of this answer.
            call = encode(served)
            return replace(call, body=b'{"cache_prompt":false,' + call.body[1:])

        if b'"resume_token_ids"' in encode(model).body:
            return await self._other.open(encoded, model, limits, stream)
        return Cut(await self._inner.open(encoded, model, limits, stream), self._after, self._kill)

    async def alive(self) -> int | None:
        return None

    def close(self) -> None:
        """The model is closed by its owner."""


@dataclass
class Box:
    """A gateway in this process before replicas of the built-in model."""

    url: str
    supervisor: Supervisor
    state: State
    session: aiohttp.ClientSession

    async def ask(self, model: str, body: Mapping[str, Any]) -> Answer:
        usage = {"include_usage": True}
        sent = {"max_tokens": TOKENS, **body, "model": model, "stream": True, "stream_options": usage}
        async with self.session.post(f"{self.url}/v1/chat/completions", json=sent) as answer:
            raw = b""
            async for data in answer.content.iter_any():
                raw += data
            assert answer.status == 200, raw
            return Answer.of(raw.decode())


@dataclass
class Answer:
    """`deltas`: what each event said, text or arguments. `count`: completion tokens, as told."""

    deltas: list[str] = field(default_factory=list)
    finishes: list[str] = field(default_factory=list)
    rungs: list[str] = field(default_factory=list)
    count: int = 0

    @property
    def said(self) -> str:
        return "".join(self.deltas)

    @classmethod
    def of(cls, raw: str) -> Answer:
        chunks = [json.loads(line[6:]) for line in raw.split("\n\n") if line.startswith("data: {")]
        made = cls()
        assert not any("error" in chunk for chunk in chunks), raw[-600:]
        assert raw.endswith("data: [DONE]\n\n"), raw[-600:]
        assert len({chunk["id"] for chunk in chunks}) == len({chunk["created"] for chunk in chunks}) == 1
        assert raw.count('"role"') == 1 and "token_ids" not in raw
        events = [chunk for chunk in chunks if chunk["choices"]]
        # Cut behind the finish reason, the answer is whole and only its usage may be lost.
        assert chunks[len(events) :] in ([], [chunk for chunk in chunks if not chunk["choices"]])
        made.count = sum(chunk["usage"]["completion_tokens"] for chunk in chunks[len(events) :])
        for (choice,) in (chunk["choices"] for chunk in events):
            calls = choice["delta"].get("tool_calls") or ()
            made.deltas.append(choice["delta"].get("content") or "")
            made.deltas[-1] += "".join(call["function"].get("arguments") or "" for call in calls)
            if choice["finish_reason"]:
                made.finishes.append(choice["finish_reason"])
        assert len(made.finishes) == 1 and "\ufffd" not in made.said
        mark = ": lumen-splice "
        made.rungs = [json.loads(x[len(mark) :])["rung"] for x in raw.split("\n\n") if x.startswith(mark)]
        return made


def _local(model: str) -> tuple[Dialect, Capabilities, Offer]:
    return module("openai").make(CAN), CAN, Offer(model, "local", model, FREE)


@asynccontextmanager
async def box(folder: Path, replicas: int, *models: str) -> AsyncIterator[Box]:
    """Routes `cut-K`, `exact-K` and `kill-K` for every K, all to the same replicas; K = WHOLE breaks nothing.

    `models`: "tiny", and "other" where cut answers are to go on.
    """
    supervisor = Supervisor(engine, folder / "run", folder / "logs", lambda state: None)
    local, other = Local(supervisor, "tiny"), Local(supervisor, "other")
    positions = (*range(1, TOKENS + 3), WHOLE)
    routes = {f"cut-{k}": Route((Target(f"at-{k}"),)) for k in positions}
    routes |= {f"exact-{k}": Route((Target(f"at-{k}"),), exact=True) for k in positions}
    routes |= {f"kill-{k}": Route((Target(f"dead-{k}"),), exact=True) for k in positions}
    limits = Timeouts(connect=10.0, headers=90.0, first_token=90.0, gap=90.0, total=120.0)
    config = Config(server=Server(keepalive=1.0), routes=routes, timeouts=limits)

    def kill() -> None:
        """The process that is at work."""
        (pid,) = [one.pid for one in supervisor.states() if one.in_flight and one.pid]
        os.kill(pid, signal.SIGKILL)

    origins = {f"at-{k}": Origin(Cutting(local, k, None, other), _local) for k in positions}
    origins |= {f"dead-{k}": Origin(Cutting(local, k, kill), _local) for k in positions}
    billing = Billing(folder / "ledger.db")
    now = asyncio.get_running_loop().time()
    state = State(
        config=config,
        table=Table(config, Origins(origins, {}), 1),
        ring=None,
        readiness=Ready(),
        access=AccessLog(lambda line: None, pretty=False),
        draw=random.Random(1),
        health=Health(random.Random(2).random, now, time.time()),
        billing=billing,
    )
    runner = web.ServerRunner(Ingress(app.handler(state), header_timeout=30, idle_timeout=60), shutdown_timeout=0.1)
    await billing.start()
    billing.configure(config, None)
    await supervisor.start()
    try:
        model = Model(source="builtin:tiny", context=1024, slots=2, threads=1, replicas=replicas)
        await supervisor.apply({name: (model, ModelFiles(name, MODEL)) for name in models})
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with asyncio.timeout(90):
            while [one.state for one in supervisor.states()].count("ready") < replicas * len(models):
                await asyncio.sleep(0.05)
        async with aiohttp.ClientSession() as session:
            yield Box(f"http://127.0.0.1:{runner.addresses[0][1]}", supervisor, state, session)
    finally:
        await runner.cleanup()
        local.close()
        other.close()
        await supervisor.stop(5)
        await billing.stop()


class Ready:
    def ready(self) -> dict[str, bool]:
        return {"tiny": True}


STORY = {"messages": [{"role": "user", "content": "Tell me a long story."}]}
SAMPLED = {**STORY, "temperature": 0.8, "seed": 7}


def _bound(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


_WORDS = {"type": "array", "items": {"type": "string", "minLength": 3, "maxLength": 12}, "minItems": 12, "maxItems": 14}
_SIGNS = {"type": "array", "items": {"enum": ["🙂🙃", "🦊🐻‍❄️", "日本語", "łódź"]}, "minItems": 9, "maxItems": 12}
_DAYS = {"type": "array", "items": {"enum": ["monday", "friday", "sunday"]}, "minItems": 8, "maxItems": 8}
_CALL = {"city": {"type": "string"}, "days": _DAYS}
_WEATHER = {"type": "object", "properties": _CALL, "required": ["city", "days"], "additionalProperties": False}
ASKED: dict[str, dict[str, Any]] = {
    "greedy": {**STORY, "temperature": 0},
    "sampled with a seed": SAMPLED,
    "with penalties": {**SAMPLED, "seed": 3, "frequency_penalty": 0.4, "presence_penalty": 0.2},
    "bound to a JSON schema": {**SAMPLED, "response_format": _bound(_WORDS)},
    "characters of several bytes": {**SAMPLED, "response_format": _bound(_SIGNS)},
    "with stop strings": {**SAMPLED, "seed": 5, "stop": ["the end of it all", "qqqq"]},
    "inside a tool call": {
        "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
        "temperature": 0,
        "tools": [{"type": "function", "function": {"name": "get_weather", "parameters": _WEATHER}}],
        "tool_choice": "required",
        "parallel_tool_calls": False,
    },
}
JSON = ("bound to a JSON schema", "characters of several bytes", "inside a tool call")


def _positions(name: str, events: int) -> list[int]:
    """Behind which events to cut. The first is the role: before it and behind it nothing was delivered."""
    if ALL:
        return list(range(2, events + 1))
    step = 7 if name in ("greedy", "sampled with a seed") else 20
    return sorted({2, 3, *range(4, events, step), events - 2, events - 1, events})


async def _cut(one: Box, name: str, unbroken: Answer, replay: str) -> str:
    """One answer, cut everywhere; the line that tells how many of them went another way. `replay`: exact or cut."""
    differ = 0
    positions = _positions(name, len(unbroken.deltas))
    if replay == "cut":
        # A replay in a batch is over at once near the end: the next answer would meet the aborted one, still at work.
        positions = [k for k in positions if k <= len(unbroken.deltas) - 20]
    for k in positions:
        # Behind the last event only the stream's closing words are lost.
        answer = await one.ask(f"{replay}-{k}", ASKED[name])
        assert answer.rungs == (["token-exact"] if k < len(unbroken.deltas) else []), k
        # Kernels see the layout of the memory too, so the run that is cut may itself differ from the unbroken one.
        differ += answer.said != unbroken.said
        if name in JSON:
            json.loads(answer.said)
    return f"{name}, {replay}: {unbroken.count} tokens, {len(positions)} cuts, {differ} differ\n"


def test_cut_anywhere_the_answer_is_whole(tmp_path: Path) -> None:
    async def work() -> None:
        async with box(tmp_path, 1, "tiny", "other") as one:
            unbroken = {name: await one.ask(f"cut-{WHOLE}", ASKED[name]) for name in ASKED}
            assert all(answer.rungs == [] and len(answer.deltas) > 30 for answer in unbroken.values())
            for replay in ("exact", "cut"):
                for name, answer in unbroken.items():
                    sys.stdout.write(await _cut(one, name, answer, replay))
                    sys.stdout.flush()

    asyncio.run(work())


@pytest.mark.parametrize("replicas", [1, 2])
def test_kill_9_of_the_worker_anywhere(replicas: int, tmp_path: Path) -> None:
    """The other replica goes on; where there is none, the same one started again."""

    async def work() -> None:
        async with box(tmp_path, replicas, "tiny") as one:
            unbroken = {name: await one.ask(f"kill-{WHOLE}", ASKED[name]) for name in ("greedy", "sampled with a seed")}
            for turn, k in enumerate((2, 8, 20, 60, 100, 140) if ALL else (2, 20, 100)):
                name = list(unbroken)[turn % 2]
                killed = await one.ask(f"kill-{k}", ASKED[name])
                assert (killed.rungs, killed.finishes) == (["token-exact"], unbroken[name].finishes), k
                assert killed.said == unbroken[name].said and killed.count == unbroken[name].count, k
                async with asyncio.timeout(60):
                    while [state.state for state in one.supervisor.states()].count("ready") < replicas:
                        await asyncio.sleep(0.02)

    asyncio.run(work())
