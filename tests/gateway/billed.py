"""What tests of billing share: a gateway's money around requests as small as they can be."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lumen.config.schema import Budget, Config, Model, Provider, Route, Server, Target
from lumen.core.errors import LumenError
from lumen.core.money import Price
from lumen.gateway.billing import Billing
from lumen.gateway.tab import Offer, Tab
from lumen.keys import Key, KeyRing, Limits, mint
from lumen.ledger.store import Ledger
from lumen.wire.answers import Usage
from lumen.wire.call import Call, Event, chat_call
from lumen.wire.parse import parse_chat
from tests.ledger.ledgers import written

# A pico-dollar a token of output, so that a cost is a count of tokens.
PAID = Offer("p/m", "p", "m", Price(output=1))
DEAR = Offer("p/dear", "p", "dear", Price(output=100))
FREE = Offer("local", "local", "local", Price())
UNKNOWN = Offer("p/new", "p", "new", None)
SECOND = 1_000_000_000


@dataclass
class Clock:
    wall: int = 1_800_000_000 * SECOND
    mono: int = 5 * SECOND

    def tick(self, seconds: float) -> None:
        self.wall += int(seconds * SECOND)
        self.mono += int(seconds * SECOND)


@dataclass
class Bench:
    billing: Billing
    path: Path
    clock: Clock
    key: Key
    told: list[str | None] = field(default_factory=list)
    count: int = 0

    def open(self, *offers: Offer, route: str = "fast", call: Call | None = None, body: int = 100) -> Tab:
        self.count += 1
        return self.billing.open(f"req_{self.count}", self.key, route, call or ask(), body, offers)

    async def serve(self, offer: Offer = PAID, *, tokens: int = 10, call: Call | None = None) -> Tab:
        """A whole request that goes well."""
        tab = self.open(offer, call=call)
        try:
            line = tab.begin(tab.offers[0])
            for event in said(tokens):
                line.note(event)
            tab.close()
        finally:
            tab.close("cancelled")
        return tab

    async def rows(self, sql: str) -> list[Any]:
        """What the file has once all that was written down is in it."""
        ledger = self.billing._ledger
        assert isinstance(ledger, Ledger)
        return await written(ledger, sql)


def ask(max_tokens: int | None = 10, **more: Any) -> Call:
    body: dict[str, Any] = {"model": "fast", "messages": [{"role": "user", "content": "hi"}], "stream": True, **more}
    if max_tokens is not None:
        body["max_tokens"] = max_tokens
    return chat_call(parse_chat(msgspec.json.encode(body)))


def said(tokens: int, *, usage: bool = True, prompt: int = 7) -> Sequence[Event]:
    events = [Event(b'{"choices":[{"index":0,"delta":{"content":"word"}}]}', content=True) for _ in range(tokens)]
    told = Usage(prompt_tokens=prompt, completion_tokens=tokens, total_tokens=prompt + tokens)
    return [*events, Event(b"{}", finished=(0,), usage=told if usage else None)]


def setup(
    limits: Limits | None = None, route: Budget | None = None, box: Budget | None = None, most: int | None = None
) -> tuple[Config, KeyRing]:
    config = Config(
        server=Server(budget=box or Budget()),
        models={"local": Model("builtin:tiny")},
        providers={"p": Provider(base_url="http://127.0.0.1:1/v1")},
        routes={"fast": Route((Target("p/m"),), budget=route or Budget(), max_output=most)},
    )
    key, _ = mint("test", limits=limits)
    return config, KeyRing([key])


@asynccontextmanager
async def bench(path: Path, *args: Any, start: Clock | None = None, **options: Any) -> AsyncIterator[Bench]:
    config, ring = setup(*args, **options)
    clock, told = start or Clock(), list[str | None]()
    billing = Billing(path, wall=lambda: clock.wall, mono=lambda: clock.mono, told=told.append)
    await billing.start()
    billing.configure(config, ring)
    try:
        yield Bench(billing, path, clock, ring.keys[0], told)
    finally:
        await billing.stop()


def unpaid(begin: Callable[[Offer], object], offer: Offer = PAID) -> LumenError:
    """Why a try cannot begin."""
    with pytest.raises(LumenError) as caught:
        begin(offer)
    return caught.value


async def refusal(work: Any) -> LumenError:
    with pytest.raises(LumenError) as caught:
        await work
    return caught.value
