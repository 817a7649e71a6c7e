"""THE path of a request, top to bottom: authenticate → parse → route → plan → attempt loop → settle."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from aiohttp.web import BaseRequest, StreamResponse

from lumen.core.errors import LumenError, UnavailableError
from lumen.core.trace import Trace
from lumen.gateway.attempts import Journey, run
from lumen.gateway.auth import authenticate
from lumen.gateway.http import read_body
from lumen.gateway.reply import EventStream, stream_reply, whole_reply
from lumen.gateway.state import State
from lumen.gateway.table import Entry, Target, not_found
from lumen.keys import Key
from lumen.wire.call import Call


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
    started = asyncio.get_running_loop().time()
    headers = request.headers
    key = authenticate(state.ring, headers.get("Authorization"), headers.get("x-api-key"), time.time())
    admit(state)
    server = state.config.server
    parsed = operation.parse(await read_body(request, server.max_body, server.body_timeout))
    entry = resolve(state, key, parsed.model)
    for name, value in entry.defaults:
        if getattr(parsed, name, True) is None:
            setattr(parsed, name, value)
    call = operation.call(parsed)
    plan = order(state, entry)
    journey = Journey(Trace(call.answers))

    def told() -> dict[str, str]:
        spent = (asyncio.get_running_loop().time() - started) * 1000
        return {
            "x-request-id": request_id,
            "x-lumen-route": entry.name,
            "x-lumen-target": journey.target,
            "openai-processing-ms": str(round(spent)),
        }

    outcome = "cancelled"
    state.counters.in_flight += 1
    try:
        async with aclosing(run(call, plan, journey, state.draw.random)) as batches:
            if call.stream:
                stream = EventStream(request, server.keepalive, server.client_stall)
                stream.headers.update({"x-request-id": request_id, "x-lumen-route": entry.name})
                response = await stream_reply(stream, batches, told)
            else:
                response = await whole_reply(batches, told)
        outcome = journey.attempts[-1].outcome
        return response
    except LumenError as error:
        outcome = error.code or error.type
        error.headers = told()
        raise
    finally:
        settle(state, request_id, entry, key, call, journey, outcome, started)


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
    splices = sum(attempt.resumed_at is not None for attempt in journey.attempts)
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
