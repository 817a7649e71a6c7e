"""`/v1/responses` where answers are kept: a request goes on from an earlier one, and its own answer is kept before the
client is told that it is complete. What may be kept is the configuration's and `retention.py`'s to say.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec
from aiohttp.web import BaseRequest, Response, StreamResponse
from msgspec import Struct

from lumen.config.schema import Responses as Rules
from lumen.core.errors import LumenError, RequestError
from lumen.gateway.auth import authenticate
from lumen.gateway.pipeline import Operation, resolve
from lumen.gateway.reply import SERVER
from lumen.gateway.state import State
from lumen.gateway.table import Entry
from lumen.keys import Key
from lumen.ledger.responses import Kept, ResponsesError
from lumen.wire.call import chat_call
from lumen.wire.ingress.dress import Sealed
from lumen.wire.ingress.responses_answer import ResponsesDress
from lumen.wire.ingress.responses_request import Item, ResponsesRequest, chat_of, items_of, parse_responses
from lumen.wire.requests import ChatRequest

_PREFIX = "/v1/responses/"
_DAY = 86_400_000_000
# A longer turn is answered and not kept.
_MOST_TURN = 8 * 1024 * 1024
_items = msgspec.json.Decoder(list[Item]).decode
_encode = msgspec.json.Encoder().encode


class _Answered(Struct):
    output: list[Item] = []


_answered = msgspec.json.Decoder(_Answered).decode


class Going(Struct):
    """A request with what it goes on from, and with what keeps its answer; `None`: nothing does."""

    given: ResponsesRequest
    earlier: list[Item]
    keep: Callable[[ResponsesDress], None] | None


class KeptDress(Sealed):
    """See `Dress`; `seal` is awaited before the end of a stream, or the whole answer, is asked for."""

    def __init__(self, inner: ResponsesDress, keep: Callable[[ResponsesDress], None]) -> None:
        self._inner = inner
        self._keep = keep
        self._last = b""

    def begin(self, request_id: str) -> None:
        self._inner.begin(request_id)

    def chunk(self, data: bytes) -> bytes:
        return self._inner.chunk(data)

    def failed(self, error: LumenError) -> bytes:
        return self._inner.failed(error)

    def end(self) -> bytes:
        return self._last

    def whole(self, data: bytes) -> bytes:
        return self._last

    async def seal(self, body: bytes | None) -> None:
        """The answer is complete: keep it. `body`: a whole answer; `None`: it was streamed.

        Where it cannot be kept, it says so in `store`; nobody loses an answer for that.
        """
        inner = self._inner
        frames = inner.closed() if body is None else b""
        if body is not None:
            inner.take(body)
        try:
            await asyncio.to_thread(self._keep, inner)
        except ResponsesError:
            inner.kept = False
        self._last = frames + inner.over() if body is None else _encode(inner.response())


async def prepare(state: State, key: Key | None, given: ResponsesRequest, request_id: str) -> Going:
    """What a request goes on from, and how its answer is kept.

    Raises:
        RequestError: 400: nothing is kept there, or what it names is not.
    """
    entry = resolve(state, key, given.model)
    why = _not_kept(state, entry, key)
    keep = None
    if why is None and given.store is not False:
        keep = _keeper(state, entry, key, given)
    name = given.previous_response_id
    if name is None:
        return Going(given, [], keep)
    if why is not None or state.responses is None:
        raise _bad(f"'previous_response_id' is not kept here: {why}; send the items in 'input'.", "invalid_value")
    turns = await asyncio.to_thread(state.responses.conversation, name, _owner(key), time.time_ns() // 1000)
    if turns is None:
        raise _bad("There is no such response, or a part of its conversation is gone.", "previous_response_not_found")
    earlier = [item for items, answer in turns for item in (*_items(items), *_answered(answer).output)]
    return Going(given, earlier, keep)


def _not_kept(state: State, entry: Entry, key: Key | None) -> str | None:
    """Why nothing is kept of this route for this key; `None`: it is."""
    if not state.retention.retains(entry.account, key):
        return "nothing of this route's or this key's requests may be kept"
    if state.responses is None or not _rules(state, entry)[0]:
        return "storing is not switched on for this route"
    return None


def _rules(state: State, entry: Entry) -> tuple[bool, int]:
    """Whether answers of this route are kept, and for how many days."""
    box, route = state.config.responses, state.config.routes.get(entry.account)
    own = route.responses if route is not None else Rules()
    store = own.store if own.store is not None else box.store
    return bool(store), own.days or box.days or 30


def _keeper(
    state: State, entry: Entry, key: Key | None, given: ResponsesRequest
) -> Callable[[ResponsesDress], None] | None:
    store, days, most = state.responses, _rules(state, entry)[1], state.config.ledger.most_responses
    if store is None:
        return None

    def keep(dress: ResponsesDress) -> None:
        now = time.time_ns() // 1000
        items, answer = _encode(items_of(given)), _encode(dress.response())
        if len(items) + len(answer) > _MOST_TURN:
            raise ResponsesError("The turn is too long to be kept.")
        until, previous = now + days * _DAY, given.previous_response_id or ""
        store.put(Kept(dress.id, _owner(key), entry.account, now, until, previous, items, answer), most)

    return keep


def _chat(going: Going) -> ChatRequest:
    return chat_of(going.given, going.earlier)


def _dress(going: Going) -> ResponsesDress | KeptDress:
    inner = ResponsesDress(going.given, kept=going.keep is not None)
    return inner if going.keep is None else KeptDress(inner, going.keep)


RESPONSES = Operation(_chat, chat_call, read=parse_responses, dress=_dress, prepare=prepare)


async def show(state: State, request: BaseRequest, request_id: str) -> StreamResponse:
    """`GET /v1/responses/{id}`.

    Raises:
        RequestError: 404: this key has no such response.
    """
    name, owner = _asked(state, request)
    now = time.time_ns() // 1000
    found = None if state.responses is None else await asyncio.to_thread(state.responses.answer, name, owner, now)
    if found is None:
        raise _missing(name)
    return _json(found, request_id)


async def remove(state: State, request: BaseRequest, request_id: str) -> StreamResponse:
    """`DELETE /v1/responses/{id}`. What goes on from it cannot be gone on with any more.

    Raises:
        RequestError: 404: this key has no such response.
    """
    name, owner = _asked(state, request)
    now = time.time_ns() // 1000
    if state.responses is None or not await asyncio.to_thread(state.responses.drop, name, owner, now):
        raise _missing(name)
    return _json(_encode({"id": name, "object": "response", "deleted": True}), request_id)


def _asked(state: State, request: BaseRequest) -> tuple[str, str]:
    headers = request.headers
    key = authenticate(state.ring, headers.get("Authorization"), headers.get("x-api-key"), time.time())
    return request.path.removeprefix(_PREFIX), _owner(key)


def _owner(key: Key | None) -> str:
    return key.id if key is not None else ""


def _json(body: bytes, request_id: str) -> Response:
    return Response(body=body, headers=SERVER | {"x-request-id": request_id}, content_type="application/json")


def _bad(message: str, code: str) -> RequestError:
    return RequestError(message, param="previous_response_id", code=code)


def _missing(name: str) -> RequestError:
    return RequestError(f"There is no response '{name[:128]}'.", status=404, code="not_found")
