"""A whole gateway in this process, on a real socket, before an emulated provider on another."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from lumen.config.schema import Config, Route, Server, Target, Timeouts
from lumen.gateway import app
from lumen.gateway.access import AccessLog
from lumen.gateway.billing import Billing
from lumen.gateway.health import Health
from lumen.gateway.http import Ingress
from lumen.gateway.state import State
from lumen.gateway.tab import Offer
from lumen.gateway.table import Origin, Origins, Table
from lumen.gateway.upstream import Remote
from lumen.keys import KeyRing, mint
from lumen.providers.base import Capabilities, Dialect, module
from tests.emulator.server import Emulator
from tests.gateway.healths import Clock, made
from tests.gateway.told import AtOnce

# Limits that a test runs into, and that a machine busy with something else does not.
TIMEOUTS = Timeouts(connect=5.0, headers=3.0, first_token=3.0, gap=3.0, total=30.0)


@dataclass
class Up:
    """What a test talks to: the gateway's address and key, the emulator behind it, and the state inside."""

    url: str
    port: int
    secret: str
    emulator: Emulator
    state: State
    session: aiohttp.ClientSession
    lines: list[str]
    log: AccessLog

    def flush(self) -> None:
        """Write the lines that are held back."""
        self.log.flush()

    async def post(self, path: str, body: Any = None, **options: Any) -> tuple[int, Any, Any]:
        headers = options.pop("headers", {"Authorization": f"Bearer {self.secret}"})
        async with self.session.post(f"{self.url}{path}", json=body, headers=headers, **options) as answer:
            return answer.status, await answer.json(), answer.headers

    async def stream(self, body: Any) -> tuple[int, str, Any]:
        headers = {"Authorization": f"Bearer {self.secret}"}
        async with self.session.post(
            f"{self.url}/v1/chat/completions", json={**body, "stream": True}, headers=headers
        ) as answer:
            text = b""
            try:
                async for data in answer.content.iter_any():
                    text += data
            except aiohttp.ClientPayloadError:
                text += b"<CUT>"
            return answer.status, text.decode(), answer.headers


class AllReady:
    def ready(self) -> dict[str, bool]:
        return {"fake": True}


def fake(model: str) -> tuple[Dialect, Capabilities, Offer]:
    can = Capabilities()
    return module("openai").make(can), can, Offer(f"fake/{model}", "fake", model, None)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def server_config() -> Server:
    return Server(header_timeout=30.0, body_timeout=30.0, keepalive=0.2, max_body=64 * 1024)


@pytest.fixture
async def up(server_config: Server, anyio_backend: str, tmp_path: Path) -> AsyncIterator[Up]:
    emulator = Emulator()
    provider = web.AppRunner(emulator.app(), shutdown_timeout=0.1, handler_cancellation=True)
    await provider.setup()
    await web.TCPSite(provider, "127.0.0.1", 0).start()
    port = provider.addresses[0][1]
    remote = Remote(f"http://127.0.0.1:{port}/v1", {"Authorization": "Bearer upstream-secret"})
    routes = {
        "failover": Route((Target("fake/status-503"), Target("fake/words-3")), policy="ordered"),
        "once": Route((Target("fake/once-500"),), policy="ordered"),
        "silent": Route((Target("fake/silent"), Target("fake/words-3")), policy="ordered"),
        "limits": Route((Target("fake/limit"), Target("fake/words-3")), policy="ordered"),
        "warm": Route((Target("fake/words-2"),), defaults={"temperature": 0.25, "max_tokens": 9}),
    }
    config = Config(server=server_config, routes=routes, timeouts=TIMEOUTS)
    key, secret = mint("test")
    lines: list[str] = []
    log = AccessLog(lines.append, pretty=False)
    billing = Billing(tmp_path / "ledger.db")
    await billing.start()
    billing.configure(config, KeyRing([key]))
    state = State(
        config=config,
        table=Table(config, Origins({}, {"fake": Origin(remote, fake)}), 1),
        ring=KeyRing([key]),
        readiness=AllReady(),
        observers=(AtOnce(log),),
        draw=random.Random(1),
        health=Health(random.Random(2).random, asyncio.get_running_loop().time(), time.time()),
        billing=billing,
    )
    ingress = Ingress(app.handler(state), header_timeout=server_config.header_timeout, idle_timeout=60)
    runner = web.ServerRunner(ingress, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    mine = runner.addresses[0][1]
    async with aiohttp.ClientSession() as session:
        yield Up(f"http://127.0.0.1:{mine}", mine, secret, emulator, state, session, lines, log)
    await runner.cleanup()
    remote.close()
    await billing.stop()
    await provider.cleanup()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return made(clock)
