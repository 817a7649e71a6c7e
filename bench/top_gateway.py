"""The gateway's live view under events that nobody asked for: what `bench/top.py` measures. Serves until it is ended.

`LUMEN_HOME=FOLDER python -m bench.top_gateway RATE`. The service, the observers of requests, the operator and the
stream of frames are those of a gateway; only the requests are made up, because a load generator, an upstream and a
gateway that serve a thousand real ones a second leave no core to measure a dashboard on.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
import time

import uvloop
from aiohttp.web import ServerRunner, UnixSite

from lumen.core.trace import Trace
from lumen.gateway import admin
from lumen.gateway.attempt import Journey, Record
from lumen.gateway.failovers import Failover
from lumen.gateway.http import Ingress
from lumen.gateway.live import Active
from lumen.gateway.settled import Settled
from lumen.operator import Operator
from lumen.paths import paths
from lumen.service import Options, Service
from lumen.wire.answers import Usage

ROUTES, TARGETS, ACTIVE = 8, 16, 100
# Seconds between two batches of events, and failovers a second.
_BATCH = 0.01
_FAILOVERS = 4


def settled(number: int, now: float) -> Settled:
    """A request that ends now: one try, sometimes one that another target went on with."""
    seconds, first = random.uniform(0.2, 1.0), random.lognormvariate(-3.0, 0.5)
    started = now - seconds
    target = f"p{number % TARGETS}/m"
    last = Record(target, "weight 1 of 2", started, sent=started + 0.001, answered=started + first / 2)
    last.first_token, last.ended, last.outcome = started + first, now, "ok" if number % 50 else "upstream_timeout"
    last.usage = Usage(200, 80, 280)
    tries = [last]
    if number % 100 == 0:
        tries.insert(0, Record("p0/m", "weight 1 of 2", started, ended=started + 0.1, outcome="upstream_disconnected"))
        last.rung, last.position = "prefill", 40
    name, route = f"req_{number:028x}", f"route{number % ROUTES}"
    return Settled(
        name, "chat/completions", route, "key-1", time.time(), started, now, last.outcome, True, tries, 10**8
    )


async def feed(service: Service, rate: float) -> None:
    """`rate` requests a second end, among `ACTIVE` that are under way; targets are asked as often."""
    loop, health = asyncio.get_running_loop(), service.state.health
    begun, number, told = loop.time(), 0, 0
    for at in range(ACTIVE):
        tries = [Record(f"p{at % TARGETS}/m", "weight 1 of 2", begun)]
        one = Active(f"req_a{at}", "chat/completions", "route0", None, True, begun, Journey(Trace(1), tries), None)
        service.state.active[one.id] = one
    while True:
        now = loop.time()
        while number < int((now - begun) * rate):
            number += 1
            ended = settled(number, now)
            given = health.begin(ended.target, now - ended.seconds)
            if given is not None:
                health.serving(given, now, ended.first_token)
                health.ended(given, now, True, max_gap=0.05, per_token=0.01)
            service.later.add(ended)
        if (now - begun) * _FAILOVERS > told:
            told += 1
            request = f"req_{number:028x}"
            health.failovers.add(
                Failover(
                    request, time.time(), "p0/m", "p1/m", "upstream_disconnected", "prefill", 40, 12.0, "one answer"
                )
            )
        await asyncio.sleep(_BATCH)


async def main() -> None:
    where = paths()
    where.make()
    providers = {f"p{at}": {"base_url": "http://127.0.0.1:9/v1"} for at in range(TARGETS)}
    routes = {f"route{at}": {"targets": [f"p{at}/m", f"p{at + ROUTES}/m"]} for at in range(ROUTES)}
    # JSON is YAML.
    where.config_file.write_text(json.dumps({"providers": providers, "routes": routes}))
    service = Service(Options(), where, lambda: None)
    runner = ServerRunner(Ingress(admin.handler(Operator(service)), header_timeout=5, idle_timeout=60))
    await runner.setup()
    await service.start()
    # As in a gateway: see `lumen/runtime.py`.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    await UnixSite(runner, str(where.admin_socket)).start()
    await feed(service, float(sys.argv[1]))


if __name__ == "__main__":
    uvloop.run(main())
