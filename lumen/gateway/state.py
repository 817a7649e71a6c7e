"""What the serving process holds: replaced as a whole on reload, read by every request, counted as they go."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from aiohttp.web import BaseRequest, StreamResponse

from lumen.config.schema import Config
from lumen.gateway.billing import Billing
from lumen.gateway.cors import Cors
from lumen.gateway.health import Health
from lumen.gateway.hosts import Hosts
from lumen.gateway.live import Active
from lumen.gateway.metrics import Snapshot
from lumen.gateway.payloads import Payloads
from lumen.gateway.planner import Planner
from lumen.gateway.retention import Retention
from lumen.gateway.settled import Observer
from lumen.gateway.table import Table
from lumen.gateway.traces import Traces
from lumen.gateway.trial import Feedback, Trial
from lumen.keys import KeyRing
from lumen.ledger.responses import Responses


@dataclass(slots=True)
class Counters:
    """Plain counts since the start; the event loop is their only writer."""

    in_flight: int = 0
    total: int = 0
    errors: int = 0
    splices: int = 0
    cancelled: int = 0


class Readiness(Protocol):
    """Whether every configured model has answered, and how each one stands."""

    def ready(self) -> dict[str, bool]: ...


@dataclass(slots=True)
class State:
    """Everything a request may look at. `ring` is `None` where authentication is off.

    `observers`: told of every request that is over. `expose`: what Prometheus reads, as it stands now.
    """

    config: Config
    table: Table
    ring: KeyRing | None
    readiness: Readiness
    observers: tuple[Observer, ...]
    draw: random.Random
    health: Health
    billing: Billing
    expose: Callable[[], Snapshot] = Snapshot
    counters: Counters = field(default_factory=Counters)
    hosts: Hosts = field(default_factory=Hosts)
    # Web pages that may read answers; `None`: none may.
    cors: Cors | None = None
    # Serves the admin API on the endpoint, see `remote.py`.
    remote: Callable[[BaseRequest], Awaitable[StreamResponse]] | None = None
    # Requests under way, by their id.
    active: dict[str, Active] = field(default_factory=dict)
    # What is tried on a route beside serving it, by its name.
    trials: dict[str, Trial] = field(default_factory=dict)
    # Takes what clients say of answers; `None`: nothing does.
    feedback: Feedback | None = None
    # What may be kept of what requests say.
    retention: Retention = field(default_factory=lambda: Retention(Config()))
    # Sends spans; `None`: nobody wants them.
    traces: Traces | None = None
    # Keeps payloads where a route wants that; `None`: none does.
    payloads: Payloads | None = None
    # Answers that later requests go on from; `None`: none are kept.
    responses: Responses | None = None
    draining: bool = False
    # Where this gateway took over from another: set once that one has closed the ledger. `None`: it has.
    released: asyncio.Event | None = None
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    # The one that everything runs on, and what plans are made from.
    loop: asyncio.AbstractEventLoop = field(init=False)
    planner: Planner = field(init=False)

    def __post_init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.planner = Planner(self.health, self.loop.time)
        self.observers = (self.planner, *self.observers)
