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
from lumen.gateway.attempt import Errand, Journey
from lumen.gateway.attempts import run
from lumen.gateway.auth import authenticate
from lumen.gateway.course import Course
from lumen.gateway.http import read_body
from lumen.gateway.objective import punctual
from lumen.gateway.reply import EventStream, Fold, stream_reply
from lumen.gateway.state import State
from lumen.gateway.tab import Tab
from lumen.gateway.table import Entry, Target, not_found
from lumen.keys import Key
from lumen.wire.call import Call, Request
from lumen.wire.continued import asked
from lumen.wire.requests import EmbeddingRequest


@dataclass(frozen=True, slots=True)
class Operation:
    """What an inference endpoint does with a body."""

    parse: Callable[[bytes], Any]
    call: Callable[[Any], Call]


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
    parsed = operation.parse(body)
    entry = resolve(state, key, parsed.model)
    call = operation.call(fill(parsed, entry, state))
    plan, fresh = punctual(state.health, entry, order(state, entry), loop.time(), stream=call.stream)
    asks = asked(call)
    journey = Journey(Trace(call.answers, replayable=asks.repeatable and call.stream))
    course = Course(
        plan,
        journey.trace,
        asks,
        state.health,
        around_filter=entry.around_filter,
        clock=loop.time,
        draw=state.draw.random,
        fresh=fresh,
    )

    def told() -> dict[str, str]:
        return {
            "x-request-id": request_id,
            "x-lumen-route": entry.name,
            "x-lumen-target": journey.target,
            "openai-processing-ms": str(round((loop.time() - started) * 1000)),
        }

    outcome = "cancelled"
    tab: Tab | None = None
    response: StreamResponse
    state.counters.in_flight += 1
    try:
        offers = [target.offer for target, _ in plan]
        tab = state.billing.open(request_id, key, entry.account, call, len(body), offers[:fresh], offers[fresh:])
        errand = partial(Errand, request_id, call, entry, len(body), state.health, tab, journey)
        if call.stream:
            known = {"x-request-id": request_id, "x-lumen-route": entry.name}
            stream = EventStream(request, known, told, keepalive=server.keepalive, stall=server.client_stall)
            response = await stream_reply(stream, run(errand(stream), course))
        else:
            fold = Fold()
            await run(errand(fold), course)
            response = fold.reply(told())
        outcome = journey.attempts[-1].outcome
        return response
    except LumenError as error:
        outcome = error.code or error.type
        error.headers |= told()
        raise
    finally:
        if tab is not None:
            tab.close(outcome)
        settle(state, request_id, entry, key, call, journey, outcome, started)


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


def resolve(state: State, key: Key | None, model: str) -> Entry:
    """The route a key may use under this name; what it may not use does not exist for it."""
    entry = state.table.find(model)
    if key is not None and not key.allows(model, route=entry.declared):
        raise not_found(model)
    return entry


def order(state: State, entry: Entry) -> list[tuple[Target, str]]:
    """The plan: targets in the order the route's policy gives, each with its reason."""
    steps = entry.order(entry.candidates, state.draw.random)
    return [(entry.targets[step.key], step.reason) for step in steps]


def settle(
    state: State,
    request_id: str,
    entry: Entry,
    key: Key | None,
    call: Call,
    journey: Journey,
    outcome: str,
    started: float,
) -> None:
    """Book the request. Synchronous, so that a cancelled handler still finishes it."""
    counters = state.counters
    counters.in_flight -= 1
    counters.total += 1
    if counters.in_flight == 0:
        state.idle.set()
    if outcome == "cancelled":
        counters.cancelled += 1
    elif outcome != "ok":
        counters.errors += 1
    last = journey.attempts[-1] if journey.attempts else None
    splices = sum(attempt.rung is not None for attempt in journey.attempts)
    counters.splices += splices
    usage = last.usage if last else None
    first = next((a.first_token for a in journey.attempts if a.first_token is not None), None)
    now = asyncio.get_running_loop().time()
    state.access.add(
        {
            "id": request_id,
            "op": call.operation.value,
            "route": entry.name,
            "target": journey.target,
            "key": key.id if key else None,
            "outcome": outcome,
            "stream": call.stream,
            "attempts": len(journey.attempts),
            "splices": splices,
            "prompt_tokens": usage.prompt_tokens if usage else None,
            "completion_tokens": usage.completion_tokens if usage else None,
            "ttft_ms": None if first is None else round((first - started) * 1000, 1),
            "ms": round((now - started) * 1000, 1),
        }
    )
