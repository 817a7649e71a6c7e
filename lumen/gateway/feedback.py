"""`POST /v1/feedback`: what a client says of an answer it got: `{"request_id": …, "score": 0…1 or "ok": true}`."""

from __future__ import annotations

import time
from typing import Annotated

import msgspec
from aiohttp.web import BaseRequest, Response, StreamResponse
from msgspec import Meta, Struct

from lumen.core.errors import RequestError
from lumen.gateway.auth import authenticate
from lumen.gateway.http import read_body
from lumen.gateway.reply import SERVER
from lumen.gateway.state import State

_MOST = 16 * 1024


class _Said(Struct, forbid_unknown_fields=True):
    request_id: Annotated[str, Meta(min_length=1, max_length=128)]
    score: Annotated[float, Meta(ge=0, le=1)] | None = None
    ok: bool | None = None
    comment: Annotated[str, Meta(max_length=4096)] = ""


async def feedback(state: State, request: BaseRequest, request_id: str) -> StreamResponse:
    """Take it in. A request of another key is, to this one, no request.

    Raises:
        RequestError: 400 for what cannot be read, 404 for a request that this key has not made.
    """
    headers = request.headers
    key = authenticate(state.ring, headers.get("Authorization"), headers.get("x-api-key"), time.time())
    body = await read_body(request, _MOST, state.config.server.body_timeout)
    try:
        said = msgspec.json.decode(body, type=_Said)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"The feedback cannot be read: {error}.") from None
    if (said.score is None) == (said.ok is None):
        raise RequestError("Give either 'score', from 0 to 1, or 'ok'.", param="score")
    score = said.score if said.score is not None else float(bool(said.ok))
    if state.feedback is None or not await state.feedback.take(said.request_id, key, score, said.comment):
        raise RequestError("This key has made no such request.", status=404, param="request_id", code="not_found")
    told = {"object": "feedback", "request_id": said.request_id, "score": score}
    return Response(
        body=msgspec.json.encode(told),
        headers=SERVER | {"x-request-id": request_id},
        content_type="application/json",
    )
