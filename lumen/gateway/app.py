"""The endpoints as a list, and the one handler that looks a request up in it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import unquote

import msgspec
from aiohttp.web import BaseRequest, Response, StreamResponse

from lumen.core.errors import LumenError, RequestError, let_go
from lumen.gateway import conversations
from lumen.gateway.auth import authenticate, identify
from lumen.gateway.feedback import feedback
from lumen.gateway.http import read_form
from lumen.gateway.metrics import CONTENT_TYPE, exposition
from lumen.gateway.pipeline import Operation, resolve, serve
from lumen.gateway.reply import SERVER, error_reply
from lumen.gateway.state import State
from lumen.wire.call import chat_call, completion_call, embedding_call
from lumen.wire.ingress.count import CountDress, estimated_count
from lumen.wire.ingress.messages_answer import MessagesDress, messages_error, model_fields, page_fields
from lumen.wire.ingress.messages_request import parse_count, parse_messages
from lumen.wire.parse import parse_chat, parse_completion, parse_embedding
from lumen.wire.passed import (
    counted,
    detokenize_call,
    image_call,
    image_edit_call,
    image_variation_call,
    kind_of,
    moderation_call,
    parse_detokenize,
    parse_image,
    parse_image_edit,
    parse_image_variation,
    parse_moderation,
    parse_rerank,
    parse_speech,
    parse_tokenize,
    parse_transcription,
    parse_translation,
    rerank_call,
    speech_call,
    tokenize_call,
    transcription_call,
    translation_call,
)

Handle = Callable[[State, BaseRequest, str], Awaitable[StreamResponse]]
# Every client of the Messages API sends it; to them a model has more fields.
_ANTHROPIC = "anthropic-version"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One row of the surface. `prefix`: the path goes on with a model's name.

    `error`: how an error is told, with the request's id, where the endpoint is of another dialect.
    """

    method: str
    path: str
    handle: Handle
    prefix: bool = False
    error: Callable[[LumenError, str], bytes] | None = None


def inference(parse: Callable[[bytes], Any], call: Callable[[Any], Any]) -> Handle:
    return _served(Operation(parse, call))


def _served(operation: Operation) -> Handle:
    async def handle(state: State, request: BaseRequest, request_id: str) -> StreamResponse:
        return await serve(state, operation, request, request_id)

    return handle


async def list_models(state: State, request: BaseRequest, request_id: str) -> StreamResponse:
    """Every route and model this key may use, those of the providers included."""
    key, table = _key(state, request), state.table
    named = [(entry.name, entry.declared) for entry in table.entries()] + [(name, False) for name in table.offered]
    allowed = [(name, route) for name, route in named if key is None or key.allows(name, route=route)]
    listed = {"object": "list", "data": [_model(state, request, name, route) for name, route in allowed]}
    if _ANTHROPIC in request.headers:
        listed |= page_fields([name for name, _ in allowed])
    return _json(listed, request_id)


async def show_model(state: State, request: BaseRequest, request_id: str) -> StreamResponse:
    name = unquote(request.rel_url.raw_path.removeprefix("/v1/models/"))
    entry = resolve(state, _key(state, request), name)
    return _json(_model(state, request, entry.name, entry.declared), request_id)


async def health(state: State, request: BaseRequest, request_id: str) -> StreamResponse:
    """The process is alive; says nothing about models."""
    return _json({"status": "ok"}, request_id)


async def ready(state: State, request: BaseRequest, request_id: str) -> StreamResponse:
    """200 once every configured model has answered a one-token inference."""
    models = state.readiness.ready()
    good = all(models.values()) and not state.draining
    return _json({"ready": good, "models": models}, request_id, status=200 if good else 503)


MESSAGES = Operation(parse_messages, chat_call, dress=lambda given: MessagesDress())


async def metrics(state: State, request: BaseRequest, request_id: str) -> StreamResponse:
    """What Prometheus reads."""
    access = state.config.server.metrics
    if access == "off":
        raise not_here()
    if access == "key" and state.ring is not None:
        headers = request.headers
        identify(state.ring, headers.get("Authorization"), headers.get("x-api-key"), time.time())
    # Written out off the loop: a text of many series takes milliseconds to make.
    text = await asyncio.to_thread(exposition, state.expose())
    return Response(body=text, headers=SERVER | {"x-request-id": request_id, "Content-Type": CONTENT_TYPE})


async def openapi(state: State, request: BaseRequest, request_id: str) -> StreamResponse:
    """What is served here, for programs; the same everywhere."""
    # Imported when it is asked for: nothing else needs it.
    from lumen.gateway.openapi import document

    text = await asyncio.to_thread(document)
    headers = SERVER | {"x-request-id": request_id}
    return Response(body=text, headers=headers, content_type="application/json")


async def remote(state: State, request: BaseRequest, request_id: str) -> StreamResponse:
    """The admin API, where the configuration lets it be asked from afar."""
    if state.remote is None:
        raise not_here()
    return await state.remote(request)


# Whoever counts tokens for the Messages API is told an estimate where no local model can count.
COUNT = Operation(
    lambda body: counted(parse_count(body)),
    tokenize_call,
    dress=lambda given: CountDress(),
    needs="tokenize",
    without=estimated_count,
)
TRANSCRIPTION = Operation(parse_transcription, transcription_call, needs="transcription", take=read_form, kind=kind_of)
TRANSLATION = Operation(parse_translation, translation_call, needs="transcription", take=read_form, kind=kind_of)
SPEECH = Operation(parse_speech, speech_call, needs="speech", kind=kind_of)
IMAGE = Operation(parse_image, image_call, needs="image_generation", kind=kind_of)
IMAGE_EDIT = Operation(parse_image_edit, image_edit_call, needs="image_edits", take=read_form, kind=kind_of)
IMAGE_VARIATION = Operation(parse_image_variation, image_variation_call, needs="image_edits", take=read_form)

ENDPOINTS = (
    Endpoint("POST", "/v1/chat/completions", inference(parse_chat, chat_call)),
    Endpoint("POST", "/v1/completions", inference(parse_completion, completion_call)),
    Endpoint("POST", "/v1/embeddings", inference(parse_embedding, embedding_call)),
    Endpoint("POST", "/v1/messages", _served(MESSAGES), error=messages_error),
    Endpoint("POST", "/v1/messages/count_tokens", _served(COUNT), error=messages_error),
    Endpoint("POST", "/v1/responses", _served(conversations.RESPONSES)),
    Endpoint("GET", "/v1/responses/", conversations.show, prefix=True),
    Endpoint("DELETE", "/v1/responses/", conversations.remove, prefix=True),
    Endpoint("POST", "/tokenize", _served(Operation(parse_tokenize, tokenize_call, needs="tokenize"))),
    Endpoint("POST", "/detokenize", _served(Operation(parse_detokenize, detokenize_call, needs="tokenize"))),
    Endpoint("POST", "/v1/rerank", _served(Operation(parse_rerank, rerank_call, needs="rerank"))),
    Endpoint("POST", "/v1/moderations", _served(Operation(parse_moderation, moderation_call, needs="moderations"))),
    Endpoint("POST", "/v1/images/generations", _served(IMAGE)),
    Endpoint("POST", "/v1/images/edits", _served(IMAGE_EDIT)),
    Endpoint("POST", "/v1/images/variations", _served(IMAGE_VARIATION)),
    Endpoint("POST", "/v1/audio/transcriptions", _served(TRANSCRIPTION)),
    Endpoint("POST", "/v1/audio/translations", _served(TRANSLATION)),
    Endpoint("POST", "/v1/audio/speech", _served(SPEECH)),
    Endpoint("POST", "/v1/feedback", feedback),
    Endpoint("GET", "/v1/models", list_models),
    Endpoint("GET", "/v1/models/", show_model, prefix=True),
    Endpoint("GET", "/health", health),
    Endpoint("GET", "/ready", ready),
    Endpoint("GET", "/metrics", metrics),
    Endpoint("GET", "/openapi.json", openapi),
    Endpoint("GET", "/admin/", remote, prefix=True),
    Endpoint("POST", "/admin/", remote, prefix=True),
)
_EXACT = {(e.method, e.path): e for e in ENDPOINTS if not e.prefix}
_PREFIXED = tuple(e for e in ENDPOINTS if e.prefix)


def find(method: str, path: str) -> Endpoint:
    """The endpoint of a request.

    Raises:
        RequestError: 404 for an unknown path, 405 for a known path with another method.
    """
    found = _EXACT.get((method, path))
    if found is not None:
        return found
    known = {e.method for e in ENDPOINTS if e.path == path and not e.prefix}
    for endpoint in _PREFIXED:
        if path.startswith(endpoint.path) and len(path) > len(endpoint.path):
            if endpoint.method == method:
                return endpoint
            known.add(endpoint.method)
    if known:
        allowed = ", ".join(sorted(known))
        wrong = RequestError(f"Use {allowed} on this path.", status=405, code="method_not_allowed")
        wrong.headers["Allow"] = allowed
        raise wrong
    raise not_here()


def not_here() -> RequestError:
    return RequestError("There is nothing at this path.", status=404, code="not_found")


def handler(state: State) -> Callable[[BaseRequest], Awaitable[StreamResponse]]:
    """The handler of the server: every error that nothing was sent for becomes its JSON here."""
    return partial(_handle, state)


def _handle(state: State, request: BaseRequest) -> Coroutine[Any, Any, StreamResponse]:
    answer = _answer(state, request)
    return answer if state.cors is None else state.cors.serve(request, answer)


def _request_ids() -> Iterator[str]:
    """Ids that nobody can guess, though they begin with the time: the ledger then adds what is new in one place.

    Asking the system for each would cost more than finding its endpoint.
    """
    while True:
        block = secrets.token_hex(8 * 256)
        for at in range(0, len(block), 16):
            # Parts of a second too, or the many of a busy one would be scattered over as many pages.
            yield f"req_{int(time.time() * 65536):012x}{block[at : at + 16]}"


_ids = _request_ids()


async def _answer(state: State, request: BaseRequest) -> StreamResponse:
    loop = state.loop
    started = loop.time()
    request_id = next(_ids)
    told = None
    try:
        headers = request.headers
        if (host := headers.get("Host")) not in state.hosts.known:
            state.hosts.check(host)
        if state.cors is not None and (allowed := state.cors.preflight(request)) is not None:
            return allowed
        origin = headers.get("Origin") if state.ring is None else None
        if origin is not None and (state.cors is None or not state.cors.allows(origin)):
            state.hosts.check_origin(origin)
        endpoint = find(request.method, request.path)
        told = endpoint.error
        response = await endpoint.handle(state, request, request_id)
        if not response.prepared:
            response.headers.setdefault("openai-processing-ms", str(round((loop.time() - started) * 1000)))
        return response
    except LumenError as error:
        let_go(error)
        spent = str(round((loop.time() - started) * 1000))
        body = None if told is None else told(error, request_id)
        response = error_reply(error, {"x-request-id": request_id, "openai-processing-ms": spent}, body)
        if error.status in (408, 413):
            # The rest of the body is not worth reading.
            response.force_close()
        return response


def _key(state: State, request: BaseRequest) -> Any:
    headers = request.headers
    return authenticate(state.ring, headers.get("Authorization"), headers.get("x-api-key"), time.time())


def _model(state: State, request: BaseRequest, name: str, route: bool) -> dict[str, Any]:
    provider, slash, _ = name.partition("/")
    created, owner = state.table.loaded, provider if slash and not route else "lumen"
    told = {"id": name, "object": "model", "created": created, "owned_by": owner}
    return told | model_fields(name, created) if _ANTHROPIC in request.headers else told


def _json(body: Any, request_id: str, status: int = 200) -> Response:
    return Response(
        body=msgspec.json.encode(body),
        status=status,
        headers=SERVER | {"x-request-id": request_id},
        content_type="application/json",
    )
