"""A gateway in this process before emulated providers of every dialect, for the proofs of failover."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from aiohttp import web

from lumen.config.schema import Config, Route, Server, Timeouts
from lumen.core.money import Price
from lumen.core.retrybudget import RetryBudget
from lumen.gateway import app
from lumen.gateway.access import AccessLog
from lumen.gateway.billing import Billing
from lumen.gateway.health import Health
from lumen.gateway.http import Ingress
from lumen.gateway.state import State
from lumen.gateway.tab import Offer
from lumen.gateway.table import Origin, Origins, Table
from lumen.gateway.upstream import Encode, Exchange, Limits, Remote
from lumen.keys import KeyRing, mint
from lumen.providers.base import Capabilities, Dialect, module
from lumen.workers.supervisor import Prompt
from tests.emulator.half_open import HalfOpen
from tests.emulator.script import parse
from tests.emulator.server import Emulator
from tests.gateway.conftest import AllReady, Up
from tests.gateway.failover_cells import Cell, Seen, able, judge, sound
from tests.gateway.told import AtOnce

PRICE = Price(input=100_000, output=1_000_000)
# How each dialect goes on with an assistant message, and where the emulator speaks it.
NATIVE = {"openai": "prefix", "anthropic": "native", "gemini": "native"}
BASE = {"openai": "/v1", "anthropic": "/v1", "gemini": "/v1beta"}
# Requests at once: those that wait for a limit, and the others.
_SILENT, _QUICK = 24, 24
HEALTHY = 50


class Unbounded(RetryBudget):
    """Nearly every request of a proof fails once."""

    def retry(self, now: float) -> bool:
        return True


@dataclass
class Rig(Up):
    ledger: Path


@asynccontextmanager
async def rig(routes: Mapping[str, Route], folder: Path) -> AsyncIterator[Rig]:
    """Providers named after their dialects, `half` for the socket that nobody reads, all with a price."""
    emulator = Emulator()
    provider = web.AppRunner(emulator.app(), shutdown_timeout=0.1, handler_cancellation=True, access_log=None)
    await provider.setup()
    await web.TCPSite(provider, "127.0.0.1", 0, backlog=1024).start()
    port = provider.addresses[0][1]
    half = HalfOpen()
    ports = {**dict.fromkeys(NATIVE, port), "half": half.port}
    remotes = {name: Remote(f"http://127.0.0.1:{at}{BASE.get(name, '/v1')}", {}) for name, at in ports.items()}
    limits = Timeouts(connect=30.0, headers=30.0, first_token=30.0, gap=30.0, total=120.0)
    config = Config(server=Server(keepalive=30.0), routes=routes, timeouts=limits)
    key, secret = mint("proof")
    billing = Billing(folder / "ledger.db")
    await billing.start()
    billing.configure(config, KeyRing([key]))
    now = asyncio.get_running_loop().time()
    health = Health(random.Random(2).random, now, time.time())
    health.retries = Unbounded(now)
    lines: list[str] = []
    log = AccessLog(lines.append, pretty=False)
    known = {name: Origin(remote, _of(name)) for name, remote in remotes.items()}
    known |= {f"{name}-again": Origin(Sound(remotes[name]), _of(name)) for name in NATIVE}
    known["replicas"] = Origin(Replicas(remotes["openai"], remotes["half"]), _replica)
    origins = Origins({}, known)
    state = State(
        config=config,
        table=Table(config, origins, 1),
        ring=KeyRing([key]),
        readiness=AllReady(),
        observers=(AtOnce(log),),
        draw=random.Random(1),
        health=health,
        billing=billing,
    )
    runner = web.ServerRunner(Ingress(app.handler(state), header_timeout=30, idle_timeout=60), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    mine = runner.addresses[0][1]
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            url, file = f"http://127.0.0.1:{mine}", folder / "ledger.db"
            yield Rig(url, mine, secret, emulator, state, session, lines, log, file)
    finally:
        await runner.cleanup()
        for remote in remotes.values():
            remote.close()
        await billing.stop()
        await provider.cleanup()
        half.close()


class Sound:
    """The same models at a place where nothing breaks."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    async def open(
        self, encode: Encode, model: str, limits: Limits, stream: bool, prompt: Prompt | None = None
    ) -> Exchange:
        return await self._remote.open(encode, sound(model), limits, stream)

    async def alive(self) -> int | None:
        return None

    def spare(self) -> bool:
        return False

    def close(self) -> None:
        """The remote is closed by its owner."""


class Replicas(Sound):
    """A local model with two replicas: the one that is asked first fails as its script has it, the other is sound."""

    def __init__(self, remote: Remote, half: Remote) -> None:
        super().__init__(remote)
        self._half = half
        self._asked: set[str] = set()

    async def open(
        self, encode: Encode, model: str, limits: Limits, stream: bool, prompt: Prompt | None = None
    ) -> Exchange:
        script = parse(model).name
        # What is wrong with a replica for a while is mended there; what ends an answer is not asked again.
        if model in self._asked and script not in ("once", "flap"):
            return await super().open(encode, model, limits, stream, prompt)
        self._asked.add(model)
        first = self._half if script == "half" else self._remote
        return await first.open(encode, model, limits, stream)

    def spare(self) -> bool:
        return True


def _replica(model: str) -> tuple[Dialect, Capabilities, Offer]:
    can = Capabilities(local=True, token_ids=True, prefill="continue")
    return module("openai").make(can), can, Offer(f"replicas/{model}", "replicas", model, PRICE, context=131_072)


def _of(provider: str) -> Callable[[str], tuple[Dialect, Capabilities, Offer]]:
    dialect = provider.removesuffix("-again").replace("half", "openai")

    def of(model: str) -> tuple[Dialect, Capabilities, Offer]:
        can = able(model, NATIVE[dialect])
        context = 131_072 if "words" in model else 8_192
        return module(dialect).make(can), can, Offer(f"{provider}/{model}", provider, model, PRICE, context=context)

    return of


async def ask(up: Up, cell: Cell) -> Seen:
    headers = {"Authorization": f"Bearer {up.secret}"}
    async with up.session.post(f"{up.url}/v1/chat/completions", json=cell.body(), headers=headers) as answer:
        raw = b""
        try:
            async for data in answer.content.iter_any():
                raw += data
        except aiohttp.ClientPayloadError:
            raw += b"<CUT>"
        return Seen.of(answer.status, raw.decode())


async def matrix(found: Sequence[Cell], folder: Path, dialect: str) -> tuple[dict[Cell, str], list[str], int]:
    """These cells under 50 healthy streams: the class of each, what went wrong, and how many healthy streams ran."""
    routes = {cell.route: cell.declared(dialect) for cell in found}
    outcomes: dict[Cell, str] = {}
    wrong: list[str] = []
    gates = {True: asyncio.Semaphore(_SILENT), False: asyncio.Semaphore(_QUICK)}
    over = asyncio.Event()

    async def one(up: Rig, cell: Cell) -> None:
        async with gates[cell.fault.silent]:
            seen = await ask(up, cell)
        try:
            outcomes[cell] = judge(cell, seen)
        except AssertionError as error:
            what = "streamed" if cell.stream else "whole"
            wrong.append(f"{cell.fault.name} / {cell.then.name} / {what} {cell.kind}: {str(error)[:2000]}")

    async with rig(routes, folder) as up:
        healthy = [asyncio.create_task(_healthy(up, dialect, i, over)) for i in range(HEALTHY)]
        await asyncio.gather(*(one(up, cell) for cell in found))
        over.set()
        ran = sum(await asyncio.gather(*healthy))
    return outcomes, wrong, ran


async def _healthy(up: Rig, dialect: str, number: int, over: asyncio.Event) -> int:
    """Slow streams, one after the other, that must not notice anything."""
    body = {"model": f"{dialect}/slow-40-25-0-{number}", "messages": [{"role": "user", "content": "go"}]}
    expected = "".join(f"word{i} " for i in range(40))
    ran = 0
    while not over.is_set() or ran == 0:
        status, text, _ = await up.stream(body)
        seen = Seen.of(status, text)
        assert (status, seen.said, seen.done, seen.splices) == (200, expected, True, []), text
        assert [c["finish_reason"] for c in seen.choices() if c["finish_reason"]] == ["stop"]
        ran += 1
    return ran
