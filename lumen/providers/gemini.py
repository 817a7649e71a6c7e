"""The Gemini dialect: `generateContent` of the Google Gemini API. The base URL ends in `/v1beta`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import quote

import msgspec

from lumen.core.errors import UpstreamError
from lumen.providers._minted import writer_for
from lumen.providers.base import MAX_ANSWER, Capabilities, Decoder, HttpCall, Resume
from lumen.wire.call import SEED, Call
from lumen.wire.decoding import WholeDecoder, check_kind
from lumen.wire.gemini import REFUSED, encode_chat, encode_embedding
from lumen.wire.gemini_answers import ContentStream, read_answer, read_embeddings
from lumen.wire.refusals import (
    FILTERED,
    LOCKED_OUT,
    TOO_LONG,
    UNSUPPORTED,
    error_object,
    refused,
    reread,
    seconds,
    strings,
    unsupported,
)
from lumen.wire.requests import ChatRequest, EmbeddingRequest
from lumen.wire.translate import refuse_incapable, relieved

_encode = msgspec.json.Encoder().encode
_KINDS = ("models/", "tunedModels/")
# A seed that the gateway lends has more bits than the API takes, and nothing of this API goes on by it.
_UNKNOWN = frozenset({*REFUSED, SEED})
_MEANINGS = (
    (re.compile(r"API key (?:not valid|expired)|API_KEY_INVALID|location is not supported"), LOCKED_OUT),
    (re.compile(r"token count.*exceeds the maximum|input context is too long"), TOO_LONG),
    (re.compile(r"blocked by|safety (?:settings|filter)"), FILTERED),
    (re.compile(r"not support|is not enabled for"), UNSUPPORTED),
)


def make(capabilities: Capabilities) -> Gemini:
    return Gemini(capabilities)


def headers(key: str) -> dict[str, str]:
    return {"x-goog-api-key": key}


class Gemini:
    """The dialect with one target's capabilities."""

    __slots__ = ("can",)

    def __init__(self, can: Capabilities) -> None:
        self.can = can

    def encode(self, call: Call, model: str, resume: Resume | None) -> HttpCall:
        """The request for `model`, which is part of the path.

        Raises:
            RefusedError: `unsupported_by_target`, with the field as its `param`.
        """
        request, resource = call.request, _resource(model)
        if not isinstance(request, ChatRequest | EmbeddingRequest):
            raise unsupported(None, f"the endpoint '{call.operation}': its API has none like it.")
        if isinstance(request, EmbeddingRequest):
            body = encode_embedding(request, resource)
            return HttpCall(f"{resource}:batchEmbedContents", _encode(body), "application/json")
        if resume is not None and resume.token_ids:
            raise unsupported("resume_token_ids", "it takes no token ids.")
        if call.answers > 1 and not self.can.n:
            raise unsupported("n", "it gives one answer a request.")
        if call.lent:
            request = relieved(request, call.lent, _UNKNOWN)
        refuse_incapable(request, tools=self.can.tools, seed=self.can.seed, json_schema=self.can.json_schema)
        made = _encode(encode_chat(request, model, images=self.can.images))
        if call.stream:
            return HttpCall(f"{resource}:streamGenerateContent?alt=sse", made, "text/event-stream")
        return HttpCall(f"{resource}:generateContent", made, "application/json")

    def decoder(self, call: Call, content_type: str, resume: Resume | None) -> Decoder:
        check_kind(content_type, stream=call.stream)
        writer, request = writer_for(call, resume), call.request
        if isinstance(request, EmbeddingRequest):
            many = 1 if isinstance(request.input, str) else len(request.input)
            return WholeDecoder(partial(read_embeddings, writer, many, request.encoding_format), MAX_ANSWER)
        # The API cannot be told to make one call at a time: what it makes beyond the first is left out.
        most_calls = 1 if isinstance(request, ChatRequest) and request.parallel_tool_calls is False else None
        if call.stream:
            return ContentStream(writer, call.answers, most_calls)
        return WholeDecoder(partial(read_answer, writer, call.answers, most_calls), MAX_ANSWER)

    def refusal(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        told = error_object(body)
        error = refused(status, headers, strings(told), trusted=self.can.local)
        if error.retry_after is None and status in (429, 503):
            error.retry_after = _delay(told)
        return reread(error, _MEANINGS)


def _resource(model: str) -> str:
    """The model's full name, safe in a path whatever the client called it."""
    kind = next((kind for kind in _KINDS if model.startswith(kind)), "")
    return (kind or "models/") + quote(model.removeprefix(kind), safe="")


def _delay(told: Mapping[str, Any]) -> float | None:
    """Seconds to wait, which this API tells in the body: `{"@type": "…RetryInfo", "retryDelay": "34s"}`."""
    details = told.get("details")
    for detail in details if isinstance(details, list) else ():
        delay = detail.get("retryDelay") if isinstance(detail, dict) else None
        if isinstance(delay, str):
            return seconds(delay.removesuffix("s"))
    return None
