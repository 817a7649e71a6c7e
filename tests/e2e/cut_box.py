"""A gateway in this process before replicas of the built-in model, whose answers can be cut off anywhere."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from lumen.config.schema import Config, Model, Route, Server, Target, Timeouts
from lumen.core.errors import BrokenError
from lumen.core.money import FREE
from lumen.core.retrybudget import RetryBudget
from lumen.engines.base import Engine, Launch, ModelFiles, Place
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
from lumen.providers.base import Capabilities, Dialect, module
from lumen.tiny import MODEL
from lumen.workers.supervisor import Prompt, Supervisor, Timing
from tests.e2e.cuts import ASKED, JSON, Answer, Figures
from tests.gateway.told import AtOnce

TOKENS = 200
CAN = Capabilities(local=True, token_ids=True, prefill="continue")


@dataclass
class Knife:
    """Where the next answer is cut: behind its `after`-th event (`None`: nowhere), by aborting its connection or by
    `kill`, which ends the process at work.
    """

    after: int | None = None
    kill: Callable[[], None] | None = None


class Cut(Exchange):
    """An exchange of which no more than so many events arrive."""

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
        return self._kept(await self._inner.read(first_by)) if self._left else await self._break()

    async def pour(self, take: Callable[[bytes], bool]) -> bool:
        return bool(self._left) and await self._inner.pour(lambda data: take(self._kept(data)) and self._left > 0)

    def _kept(self, data: bytes) -> bytes:
        """What arrives of it: no more than the events that are left."""
        events = data.split(b"\n\n")
        if len(events) - 1 < self._left:
            self._left -= len(events) - 1
            return data
        kept, self._left = events[: self._left], 0
        return b"\n\n".join(kept) + b"\n\n"

    async def _break(self) -> bytes:
        """What the gateway would see: the connection broke, or what a killed process leaves behind."""
        if self._kill is None:
            raise BrokenError("The connection to the target broke.", phase="stream")
        self._kill()
        while await self._inner.read(None):
            continue
        return b""

    async def refusal(self) -> bytes:
        return await self._inner.refusal()

    def close(self, ok: bool | None) -> None:
        self._inner.close(ok)


class Cutting:
    """A local model and the knife that its next answer meets."""

    def __init__(self, inner: Local, knife: Knife) -> None:
        self._inner = inner
        self._knife = knife

    async def open(
        self, encode: Encode, model: str, limits: Limits, stream: bool, prompt: Prompt | None = None
    ) -> Exchange:
        exchange = await self._inner.open(encode, model, limits, stream, prompt)
        after, self._knife.after = self._knife.after, None
        return exchange if after is None else Cut(exchange, after, self._knife.kill)

    async def alive(self) -> int | None:
        return None

    def spare(self) -> bool:
        return self._inner.spare()

    def close(self) -> None:
        """The model is closed by its owner."""


@dataclass
class Box:
    """A gateway in this process. Its routes are `default`, `exact` and `unharmed`, all to the same replicas."""

    url: str
    many: int
    supervisor: Supervisor
    session: aiohttp.ClientSession
    knife: Knife
    killed: int = 0

    async def ask(self, route: str, body: Mapping[str, Any], after: int | None = None, kill: bool = False) -> Answer:
        """An answer, cut behind its `after`-th event."""
        self.knife.after, self.knife.kill = after, self._kill if kill else None
        raw = await self._stream({"max_tokens": TOKENS, **body, "model": route})
        assert self.knife.after is None, "the knife was not met"
        if kill:
            await self.ready()
        return Answer.of(raw)

    async def heard(self, body: Mapping[str, Any]) -> None:
        """An answer that nothing befalls, past the knife."""
        await self._stream({**body, "model": "unharmed"})

    async def _stream(self, body: Mapping[str, Any]) -> str:
        sent = {**body, "stream": True, "stream_options": {"include_usage": True}}
        async with self.session.post(f"{self.url}/v1/chat/completions", json=sent) as answer:
            raw = b""
            async for data in answer.content.iter_any():
                raw += data
            assert answer.status == 200, raw
        return raw.decode()

    def _kill(self) -> None:
        """The process that is at work."""
        (self.killed,) = [one.pid for one in self.supervisor.states() if one.in_flight and one.pid]
        os.kill(self.killed, signal.SIGKILL)

    async def ready(self) -> None:
        async with asyncio.timeout(300):
            while sum(one.state == "ready" and one.pid != self.killed for one in self.supervisor.states()) < self.many:
                await asyncio.sleep(0.01)


def every(step: int) -> Callable[[int], Iterable[int]]:
    """Behind which of so many events to cut: every `step`-th from before the first one on, and behind the last."""
    return lambda events: sorted({*range(0, events, step), events})


async def survey(
    one: Box, name: str, route: str, places: Callable[[int], Iterable[int]], *, kill: bool = False
) -> Figures:
    """Cut one kind of answer behind each of the events that `places` picks of so many.

    Raises AssertionError where an answer is not whole, or did not go on as it should.
    """
    unbroken = await one.ask(route, ASKED[name])
    events = len(unbroken.deltas)
    assert unbroken.rungs == [] and events > 30
    figures = Figures(unbroken.count)
    for after in places(events):
        answer = await one.ask(route, ASKED[name], after, kill)
        # Up to the role nothing was delivered, so the answer begins again; behind the last event nothing is missing.
        rungs = ["token-exact"] if 1 < after < events else []
        assert answer.rungs == rungs or (route != "exact" and answer.said != unbroken.said), (name, after, answer)
        if name in JSON:
            json.loads(answer.said)
        figures.cuts += 1
        figures.equal += answer.said == unbroken.said and answer.finishes == unbroken.finishes
    return figures


class Unbounded(RetryBudget):
    """Nearly every answer here is broken off once."""

    def retry(self, now: float) -> bool:
        return True


class Ready:
    def ready(self) -> dict[str, bool]:
        return {"tiny": True}


class _Singly:
    """Our own worker, each token an event of its own: so every answer has as many, and can be cut behind each token."""

    def __init__(self, inner: Engine) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def launch(self, files: ModelFiles, model: Model, place: Place) -> Launch:
        launch = self._inner.launch(files, model, place)
        return replace(launch, argv=(*launch.argv, "--together", "0"))


def _singly(name: str) -> Any:
    return _Singly(engine(name)) if name == "llamacpp" else engine(name)


@asynccontextmanager
async def box(
    folder: Path, replicas: int, served: tuple[Model, ModelFiles] | None = None, can: Capabilities = CAN
) -> AsyncIterator[Box]:
    """Replicas that are started again at once, however often they are killed.

    `served`: another model than the built-in one, under the name "tiny"; `can`: what it can do.
    """
    timing = Timing(backoff=0.01, backoff_most=0.01)
    supervisor = Supervisor(_singly, folder / "run", folder / "logs", lambda state: None, timing=timing)
    local, knife = Local(supervisor, "tiny"), Knife()
    routes = {name: Route((Target("cut"),), exact=name == "exact") for name in ("default", "exact")}
    routes["unharmed"] = Route((Target("tiny"),))
    limits = Timeouts(connect=10.0, headers=90.0, first_token=90.0, gap=90.0, total=120.0)
    config = Config(server=Server(keepalive=1.0), routes=routes, timeouts=limits)
    model, files = served or (Model(source="builtin:tiny", context=1024, slots=2, threads=1), ModelFiles("tiny", MODEL))
    dialect = module(engine(model.engine).dialect(model)).make(can)

    def offered(name: str) -> tuple[Dialect, Capabilities, Offer]:
        return dialect, can, Offer(name, "local", name, FREE, model.context)

    origins = {"tiny": Origin(local, offered), "cut": Origin(Cutting(local, knife), offered)}
    billing = Billing(folder / "ledger.db")
    now = asyncio.get_running_loop().time()
    health = Health(random.Random(2).random, now, time.time())
    health.retries = Unbounded(now)
    state = State(
        config=config,
        table=Table(config, Origins(origins, {}), 1),
        ring=None,
        readiness=Ready(),
        observers=(AtOnce(AccessLog(lambda line: None, pretty=False)),),
        draw=random.Random(1),
        health=health,
        billing=billing,
    )
    runner = web.ServerRunner(Ingress(app.handler(state), header_timeout=30, idle_timeout=60), shutdown_timeout=0.1)
    await billing.start()
    billing.configure(config, None)
    await supervisor.start()
    try:
        await supervisor.apply({"tiny": (replace(model, replicas=replicas), files)})
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with aiohttp.ClientSession() as session:
            made = Box(f"http://127.0.0.1:{runner.addresses[0][1]}", replicas, supervisor, session, knife)
            await made.ready()
            yield made
    finally:
        await runner.cleanup()
        local.close()
        await supervisor.stop(5)
        await billing.stop()
