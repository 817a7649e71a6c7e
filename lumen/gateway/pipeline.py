"""THE path of a request, top to bottom: authenticate → parse → route → plan → attempt loop → settle."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp.web import BaseRequest, StreamResponse
from msgspec import structs

from lumen.core.errors import LumenError, UnavailableError
from lumen.gateway.ability import lacking, narrowed
from lumen.gateway.auth import authenticate
from lumen.gateway.http import read_body
from lumen.gateway.passage import Passage
from lumen.gateway.reply import estimate_reply
from lumen.gateway.state import State
from lumen.gateway.table import Entry, not_found
from lumen.keys import Key
from lumen.wire.call import SEED, Call, Request
from lumen.wire.ingress.dress import Dress
from lumen.wire.requests import Plain

# Seconds beyond the time to drain in which a gateway that hands over ends its engines, and closes a ledger that it
# could not lend because of trouble; what costs nothing waits no longer than the other number.
_HANDED_OVER = 20.0
_FREE_WAITS = 2.0


@dataclass(frozen=True, slots=True)
class Operation:
    """What an inference endpoint does with a body: `parse` it, make it a `call`.

    `dress`: for an endpoint of another dialect, what turns the answer to a body into that dialect; it and `parse` then
    share what `read` made of the body.
    `needs`: the capability that a target must have, where not every one has it; `without`: what is answered where none
    has, of the request and its size in bytes. `take`: reads the body. `kind`: the content type of the answer.
    `prepare`: what takes a wait, done with what was read before it is parsed.
    """

    parse: Callable[[Any], Any]
    call: Callable[[Any], Call]
    read: Callable[[bytes], Any] | None = None
    dress: Callable[[Any], Dress] | None = None
    needs: str | None = None
    without: Callable[[Any, int], bytes] | None = None
    take: Callable[[BaseRequest, int, float], Awaitable[Any]] = read_body
    kind: Callable[[Any], str] | None = None
    prepare: Callable[[State, Key | None, Any, str], Awaitable[Any]] | None = None


async def serve(state: State, operation: Operation, request: BaseRequest, request_id: str) -> StreamResponse:
    """Serve one inference request.

    Raises:
        LumenError: nothing was sent yet; the caller answers with it.
    """
    started = state.loop.time()
    headers = request.headers
    key = authenticate(state.ring, headers.get("Authorization"), headers.get("x-api-key"), time.time())
    admit(state)
    server = state.config.server
    body = await operation.take(request, server.max_body, server.body_timeout)
    given = body if operation.read is None else operation.read(body)
    if operation.prepare is not None:
        given = await operation.prepare(state, key, given, request_id)
    parsed = operation.parse(given)
    dress = None if operation.dress is None else operation.dress(given)
    if dress is not None:
        dress.begin(request_id)
    entry = resolve(state, key, parsed.model)
    if operation.needs is not None:
        able = state.table.able(entry, operation.needs, narrowed)
        if able is None:
            if operation.without is None:
                raise lacking(entry, operation.needs)
            return estimate_reply(operation.without(parsed, len(body)), request_id, entry.name)
        entry = able
    lent = fill(parsed, entry, state)
    call = operation.call(parsed)
    if lent:
        call = structs.replace(call, lent=lent)
    if state.released is not None:
        await accountable(state, entry)
    passage = Passage(state, request_id, key, entry, call, len(body), headers, started)
    outcome = "cancelled"
    try:
        kind = None if operation.kind is None else operation.kind(parsed)
        response, outcome = await passage.answer(request, dress, kind)
        return response
    except LumenError as error:
        outcome = error.outcome
        error.headers |= passage.told()
        raise
    finally:
        passage.end(outcome)


def fill(parsed: Request, entry: Entry, state: State) -> tuple[str, ...]:
    """The route's defaults where the client gave nothing, and a seed where a broken answer may need one.

    Returns the names of these fields.
    """
    lent: tuple[str, ...] = ()
    for name, value in entry.defaults:
        if getattr(parsed, name, True) is None:
            setattr(parsed, name, value)
            lent += (name,)
    if entry.seeded and not isinstance(parsed, Plain) and parsed.seed is None and parsed.stream:
        # A replica that goes on with a sampled answer must draw what the broken one would have drawn.
        parsed.seed = state.draw.getrandbits(62)
        lent += (SEED,)
    return lent


def admit(state: State) -> None:
    """Refuse what cannot be finished: while draining, or with too many requests under way."""
    if state.draining:
        raise UnavailableError("Lumen is shutting down; try again shortly.", code="draining", retry_after=5)
    if state.counters.in_flight >= state.config.server.max_in_flight:
        raise UnavailableError("Too many requests are under way.", code="overloaded", retry_after=1)


async def accountable(state: State, entry: Entry) -> None:
    """Wait until the gateway before this one has closed the ledger, usually for some hundredths of a second.

    Raises:
        UnavailableError: it did not, and this may cost money. What costs nothing is then booked later.
    """
    free = all(target.offer.price is None or target.offer.price.free for target in entry.targets)
    if state.released is None:
        return
    try:
        async with asyncio.timeout(_FREE_WAITS if free else state.config.server.drain + _HANDED_OVER):
            await state.released.wait()
    except TimeoutError:
        if not free:
            raise UnavailableError(
                "Another gateway still keeps the accounts; try again shortly.", code="draining", retry_after=5
            ) from None


def resolve(state: State, key: Key | None, model: str) -> Entry:
    """The route a key may use under this name; what it may not use does not exist for it."""
    entry = state.table.find(model)
    if key is not None and not key.allows(model, route=entry.declared):
        raise not_found(model)
    return entry
