"""The OpenAPI document of this endpoint, made of the table below, of the structs that requests are decoded into, and of
the table of admin calls. A test holds the first to the endpoints that are served (`app.py`).

Source: OpenAPI Specification 3.1.1. Made when it is first asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec

import lumen
from lumen.gateway.admin import CALLS, EVENTS, Call
from lumen.wire.ingress.messages_request import CountRequest, MessagesRequest
from lumen.wire.ingress.responses_request import ResponsesRequest
from lumen.wire.passed import (
    DetokenizeRequest,
    ImageRequest,
    ModerationRequest,
    RerankRequest,
    SpeechRequest,
    TokenizeRequest,
)
from lumen.wire.requests import ChatRequest, CompletionRequest, EmbeddingRequest

Json = dict[str, Any]
_REF = "#/components/schemas/{name}"
_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class About:
    """One row of the surface. `path`: a part that varies is a parameter, in braces.

    `body`: what the request is decoded into, or its schema. `answer`: the schema of a whole answer; `streams`: it may
    be a stream of events instead. `open`: it needs no key.
    """

    method: str
    path: str
    summary: str
    answer: Json
    body: type | Json | None = None
    streams: bool = False
    open: bool = False
    error: str = "Error"
    kind: str = _JSON


def _object(*required: str, **properties: Json) -> Json:
    return {"type": "object", "required": list(required), "properties": properties}


_TEXT: Json = {"type": "string"}
_LIST: Json = {"type": "array", "items": {"type": "object"}}
_COMPLETION = _object("id", "object", "created", "model", "choices", choices=_LIST, usage={"type": "object"})
_MODEL = _object("id", "object", "created", "owned_by", id=_TEXT, object={"const": "model"}, owned_by=_TEXT)

_IMAGES = _object("created", "data", data=_LIST)
_SAID = _object("text", text=_TEXT)


def _form(file: str, **more: Json) -> Json:
    return _object("model", file, **{"model": _TEXT, file: {"type": "string", "format": "binary"}, **more})


SURFACE: tuple[About, ...] = (
    About("POST", "/v1/chat/completions", "Answer a conversation.", _COMPLETION, ChatRequest, streams=True),
    About("POST", "/v1/completions", "Go on with a text.", _COMPLETION, CompletionRequest, streams=True),
    About("POST", "/v1/embeddings", "Embed texts.", _object("object", "data", "model", data=_LIST), EmbeddingRequest),
    About(
        "POST",
        "/v1/messages",
        "Answer a conversation, in the dialect of the Messages API.",
        _object("id", "type", "role", "content", "model", "usage", content=_LIST),
        MessagesRequest,
        streams=True,
        error="MessagesError",
    ),
    About(
        "POST",
        "/v1/responses",
        "Answer, in the dialect of the Responses API.",
        _object("id", "object", "status", "model", "output", output=_LIST),
        ResponsesRequest,
        streams=True,
    ),
    About(
        "POST",
        "/v1/messages/count_tokens",
        "Count the tokens of a conversation; `x-lumen-estimated` marks an estimate.",
        _object("input_tokens", input_tokens={"type": "integer"}),
        CountRequest,
        error="MessagesError",
    ),
    About(
        "POST",
        "/tokenize",
        "The tokens of a text or a conversation, as a local model sees them.",
        _object("tokens", "count", tokens={"type": "array", "items": {"type": "integer"}}),
        TokenizeRequest,
    ),
    About("POST", "/detokenize", "The text of tokens.", _object("prompt", prompt=_TEXT), DetokenizeRequest),
    About("POST", "/v1/rerank", "Rank documents by a query.", _object("results", results=_LIST), RerankRequest),
    About("POST", "/v1/moderations", "Moderate.", _object("results", results=_LIST), ModerationRequest),
    About("POST", "/v1/images/generations", "Make images.", _IMAGES, ImageRequest, streams=True),
    About("POST", "/v1/images/edits", "Change images.", _IMAGES, _form("image", prompt=_TEXT), streams=True),
    About("POST", "/v1/images/variations", "Vary an image.", _IMAGES, _form("image")),
    About("POST", "/v1/audio/transcriptions", "Write audio down.", _SAID, _form("file"), streams=True),
    About("POST", "/v1/audio/translations", "Write audio down in English.", _SAID, _form("file")),
    About(
        "POST", "/v1/audio/speech", "Speak.", {"type": "string", "format": "binary"}, SpeechRequest, kind="audio/mpeg"
    ),
    About(
        "GET",
        "/v1/responses/{id}",
        "A response that was kept for this key.",
        _object("id", "object", "status", "model", "output", output=_LIST),
    ),
    About(
        "DELETE",
        "/v1/responses/{id}",
        "Forget a response.",
        _object("id", "object", "deleted", deleted={"const": True}),
    ),
    About(
        "POST",
        "/v1/feedback",
        "Say how good an answer was: a score from 0 to 1, or whether it was good.",
        _object("object", "request_id", "score"),
        _object(
            "request_id",
            request_id={"type": "string", "minLength": 1, "maxLength": 128},
            score={"type": "number", "minimum": 0, "maximum": 1},
            ok={"type": "boolean"},
            comment={"type": "string", "maxLength": 4096},
        ),
    ),
    About("GET", "/v1/models", "Every route and model that this key may use.", _object("object", "data", data=_LIST)),
    About("GET", "/v1/models/{model}", "One of them; its name may hold slashes.", _MODEL),
    About("GET", "/health", "The process is alive.", _object("status", status={"const": "ok"}), open=True),
    About(
        "GET",
        "/ready",
        "200 once every configured model has answered, 503 until then.",
        _object("ready", "models", ready={"type": "boolean"}, models={"type": "object"}),
        open=True,
    ),
    About("GET", "/metrics", "What Prometheus reads.", _TEXT, kind="text/plain"),
    About("GET", "/openapi.json", "This document.", _object("openapi", "info", "paths"), open=True),
)
# What the admin API has besides its calls, for signing on and off; see `remote.py`.
SIGN_ON: tuple[About, ...] = (
    About("GET", "/admin/auth", "How to sign on.", _object("issuer"), open=True),
    About("GET", "/admin/login", "Sign on in a browser: leads to the issuer.", _object(), open=True),
    About(
        "GET",
        "/admin/callback",
        "Where the issuer leads back to; ends with a session token.",
        _object("token", "name", "role", token=_TEXT),
        open=True,
    ),
    About("GET", "/admin/whoami", "Who you are, and what you may do.", _object("name", "role")),
    About("POST", "/admin/logout", "End the session that asks.", _object("ended", ended={"type": "boolean"})),
)


@cache
def document() -> bytes:
    """The document as JSON. The same for every configuration: it tells nothing of this one."""
    rows = (*SURFACE, *SIGN_ON, *(_told(call) for call in CALLS))
    paths: dict[str, Json] = {}
    for row in rows:
        paths.setdefault(row.path, {})[row.method.lower()] = _operation(row)
    for call in CALLS:
        if call.fields:
            fields = _object(*call.fields, **dict.fromkeys(call.fields, _TEXT))
            paths[_path(call)]["post"]["requestBody"] = {"required": True, "content": {_JSON: {"schema": fields}}}
    return msgspec.json.encode(
        {
            "openapi": "3.1.1",
            "info": {
                "title": "Lumen",
                "version": lumen.__version__,
                "description": "One OpenAI-compatible endpoint over local engines and remote providers.",
                "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
            },
            "security": [{"bearer": []}, {"header": []}],
            "paths": paths,
            "components": {
                "schemas": _schemas(),
                "securitySchemes": {
                    "bearer": {"type": "http", "scheme": "bearer"},
                    "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                },
            },
        }
    )


def _operation(row: About) -> Json:
    good: Json = {row.kind: {"schema": row.answer}}
    if row.streams:
        good["text/event-stream"] = {}
    told: Json = {"description": "As asked.", "content": good}
    wrong = {"description": "What went wrong.", "content": {_JSON: {"schema": {"$ref": _REF.format(name=row.error)}}}}
    made: Json = {
        "summary": row.summary,
        "operationId": f"{row.method}{row.path}".lower().replace("{", "").replace("}", ""),
        "responses": {"2XX": told, "default": wrong},
    }
    if row.path == "/ready":
        made["responses"]["503"] = told
    if row.path == "/admin/login":
        made["responses"] = {"302": {"description": "To the issuer."}, "default": wrong}
    if row.open:
        made["security"] = []
    if row.body is not None:
        schema: Json = {"$ref": _REF.format(name=row.body.__name__)} if isinstance(row.body, type) else row.body
        properties: Json = schema.get("properties", {})
        binary = any(one.get("format") == "binary" for one in properties.values())
        kind = "multipart/form-data" if binary else _JSON
        made["requestBody"] = {"required": True, "content": {kind: {"schema": schema}}}
    if "{" in row.path:
        name = row.path.partition("{")[2].partition("}")[0]
        made["parameters"] = [{"name": name, "in": "path", "required": True, "schema": {**_TEXT, "minLength": 1}}]
    return made


def _told(call: Call) -> About:
    """An admin call as a row."""
    said = f"Role {call.role} and above, where server.remote_admin is on."
    if call.path == EVENTS:
        lines = f"What goes on, a line of JSON four times a second. {said}"
        return About(call.method, call.path, lines, _TEXT, kind="application/x-ndjson")
    return About(call.method, _path(call), f"{call.name.capitalize()}. {said}", {"type": ["object", "array"]})


def _path(call: Call) -> str:
    return f"{call.path}{{id}}" if call.prefix else call.path


def _schemas() -> Mapping[str, Json]:
    """What requests are decoded into, with what is checked besides, and errors."""
    bodies = [row.body for row in SURFACE if isinstance(row.body, type)]
    _, found = msgspec.json.schema_components(bodies, ref_template=_REF)
    ids = {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}}
    texts = {"type": "array", "minItems": 1, "maxItems": 2048, "items": {"anyOf": [_TEXT, ids]}}
    for name, field in (("CompletionRequest", "prompt"), ("EmbeddingRequest", "input")):
        found[name]["properties"][field] = {"anyOf": [_TEXT, ids, texts]}
    said = _object(
        "message", "type", "param", "code", message=_TEXT, type=_TEXT, param={"type": ["string", "null"]},
        code={"type": ["string", "null"]},
    )  # fmt: skip
    found["Error"] = _object("error", error=said)
    told = _object("type", "message", type=_TEXT, message=_TEXT)
    found["MessagesError"] = _object("type", "error", type={"const": "error"}, error=told)
    return found
