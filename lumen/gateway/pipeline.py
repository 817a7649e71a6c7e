"""THE path of a request, top to bottom: authenticate → parse → route → plan → attempt loop → settle."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from aiohttp.web import BaseRequest, StreamResponse

from lumen.core.errors import LumenError, UnavailableError
from lumen.core.trace import Trace
from lumen.gateway import planning, timing
from lumen.gateway.attempt import Errand, Journey
from lumen.gateway.attempts import run
from lumen.gateway.auth import authenticate
from lumen.gateway.course import Course
from lumen.gateway.http import read_body
from lumen.gateway.live import Active
from lumen.gateway.reply import EventStream, Fold, stream_reply
from lumen.gateway.settled import Settled
from lumen.gateway.state import State
from lumen.gateway.tab import Tab
from lumen.gateway.table import Entry, not_found
from lumen.gateway.traces import context_of
from lumen.gateway.trial import Asked
from lumen.keys import Key
from lumen.wire.call import Call, Request
from lumen.wire.continued import asked
from lumen.wire.ingress.dress import Dress
from lumen.wire.requests import EmbeddingRequest

# Seconds beyond the time to drain in which a gateway that hands over ends its engines and closes its ledger.
_HANDED_OVER = 20.0


@dataclass(frozen=True, slots=True)
class Operation:
    """What an inference endpoint does with a body: `parse` it, make it a `call`.

    `dress`: for an endpoint of another dialect, what turns the answer to a body into that dialect; it and `parse` then
    share what `read` made of the body.
    """

    parse: Callable[[Any], Any]
    call: Callable[[Any], Call]
    read: Callable[[bytes], Any] | None = None
    dress: Callable[[Any], Dress] | None = None


async def serve(state: State, operation: Operation, request: BaseRequest, request_id: str) -> StreamResponse:
    """Serve one inference request.

    Raises:
        LumenError: nothing was sent yet; the caller answers with it.
    """
    loop = asyncio.get_running_loop()
    started = loop.time()
    headers = request.headers
    key = authenticate(state.ring, headers.get("Authorization"), headers.get("x-api-key"), time.time())
    admit(state)
    server = state.config.server
    body = await read_body(request, server.max_body, server.body_timeout)
    given = body if operation.read is None else operation.read(body)
    parsed = operation.parse(given)
    dress = None if operation.dress is None else operation.dress(given)
    if dress is not None:
        dress.begin(request_id)
    entry = resolve(state, key, parsed.model)
    call = operation.call(fill(parsed, entry, state))
    if state.released is not None:
        await accountable(state, entry)
    plan, fresh = planning.plan(state, entry, call, request_id, key, len(body), headers, loop.time())
    trial = state.trials.get(entry.account)
    part = None if trial is None else trial.begin(Asked(request_id, entry, key, call, len(body), headers))
    if part is not None:
        plan, fresh = part.steer(plan, fresh)
    asks = asked(call)
    journey = Journey(Trace(call.answers, replayable=asks.repeatable and call.stream))
    journey.context = context_of(state.traces, headers.get("traceparent"), headers.get("tracestate"))
    course = Course(
        plan,
        journey.trace,
        asks,
        state.health,
        around_filter=entry.around_filter,
        clock=loop.time,
        draw=state.draw.random,
        fresh=fresh,
        cover=entry.cover,
    )

    def told() -> dict[str, str]:
        return {
            "x-request-id": request_id,
            "x-lumen-route": entry.name,
            "x-lumen-target": journey.target,
            "x-lumen-reason": planning.reason(plan, journey.attempts),
            "openai-processing-ms": str(round((loop.time() - started) * 1000)),
            **timing.headers(journey.attempts, started, stream=call.stream),
        }

    outcome, cost, whole = "cancelled", 0, b""
    tab: Tab | None = None
    response: StreamResponse
    state.counters.in_flight += 1
    who = key.id if key else None
    state.active[request_id] = Active(
        request_id, call.operation.value, entry.name, who, call.stream, started, journey, asyncio.current_task()
    )
    try:
        offers = [target.offer for target, _ in plan]
        tab = state.billing.open(request_id, key, entry.account, call, len(body), offers[:fresh], offers[fresh:])
        errand = partial(Errand, request_id, call, entry, len(body), state.health, tab, journey)
        if call.stream:
            known = {"x-request-id": request_id, "x-lumen-route": entry.name}
            limits = {"keepalive": server.keepalive, "stall": server.client_stall}
            stream = EventStream(request, known, told, dress=dress, **limits)
            response = await stream_reply(stream, run(errand(stream), course))
        else:
            fold = Fold(dress)
            await run(errand(fold), course)
            whole = fold.body
            response = await fold.reply(request, told())
        outcome = journey.attempts[-1].outcome
        return response
    except LumenError as error:
        outcome = error.outcome
        error.headers |= told()
        raise
    finally:
        if tab is not None:
            tab.close(outcome)
            cost = tab.cost
        settled = Settled(
            request_id,
            call.operation.value,
            entry.name,
            who,
            time.time(),
            started,
            loop.time(),
            outcome,
            call.stream,
            journey.attempts,
            cost,
        )
        settle(state, settled)
        if state.traces is not None and journey.context is not None and journey.context.sampled:
            may = state.retention.retains(entry.account, key)
            state.traces.take(settled, journey.context, call if may else None, journey.trace, whole)
        if state.payloads is not None:
            state.payloads.take(settled, entry.account, key, call, journey.trace, whole)
        if part is not None:
            part.over(settled, journey, whole)


def fill(parsed: Request, entry: Entry, state: State) -> Request:
    """The route's defaults where the client gave nothing, and a seed where a broken answer may need one."""
    for name, value in entry.defaults:
        if getattr(parsed, name, True) is None:
            setattr(parsed, name, value)
    if entry.seeded and not isinstance(parsed, EmbeddingRequest) and parsed.seed is None and parsed.stream:
        # A replica that goes on with a sampled answer must draw what the broken one would have drawn.
        parsed.seed = state.draw.getrandbits(62)
    return parsed


def admit(state: State) -> None:
    """Refuse what cannot be finished: while draining, or with too many requests under way."""
    if state.draining:
        raise UnavailableError("Lumen is shutting down; try again shortly.", code="draining", retry_after=5)
    if state.counters.in_flight >= state.config.server.max_in_flight:
        raise UnavailableError("Too many requests are under way.", code="overloaded", retry_after=1)


async def accountable(state: State, entry: Entry) -> None:
    """What may cost money waits until the gateway before this one has closed the ledger; it drains no longer than this.

    Raises:
        UnavailableError: it did not.
    """
    free = all(target.offer.price is None or target.offer.price.free for target in entry.targets)
    if free or state.released is None:
        return
    try:
        async with asyncio.timeout(state.config.server.drain + _HANDED_OVER):
            await state.released.wait()
    except TimeoutError:
        raise UnavailableError(
            "Another gateway still keeps the accounts; try again shortly.", code="draining", retry_after=5
        ) from None


def resolve(state: State, key: Key | None, model: str) -> Entry:
    """The route a key may use under this name; what it may not use does not exist for it."""
    entry = state.table.find(model)
    if key is not None and not key.allows(model, route=entry.declared):
        raise not_found(model)
    return entry


def settle(state: State, settled: Settled) -> None:
    """Count the request and tell who watches. Synchronous, so that a cancelled handler still finishes it."""
    del state.active[settled.id]
    counters = state.counters
    counters.in_flight -= 1
    counters.total += 1
    if counters.in_flight == 0:
        state.idle.set()
    if settled.outcome == "cancelled":
        counters.cancelled += 1
    elif settled.outcome != "ok":
        counters.errors += 1
    counters.splices += len(settled.splices)
    for observer in state.observers:
        observer.add(settled)
