"""The Anthropic dialect: the Messages API, as Anthropic and those who copy it serve it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

import msgspec

from lumen.core.errors import UpstreamError
from lumen.providers._minted import writer_for
from lumen.providers.base import MAX_ANSWER, Capabilities, Decoder, HttpCall, Resume
from lumen.wire.anthropic import REFUSED, answers_by_tool, encode_chat
from lumen.wire.anthropic_answers import MessageStream, read_message
from lumen.wire.call import Call, Event
from lumen.wire.chunks import Writer
from lumen.wire.decoding import WholeDecoder, check_kind
from lumen.wire.refusals import (
    FILTERED,
    LOCKED_OUT,
    TOO_LONG,
    UNSUPPORTED,
    error_object,
    refused,
    reread,
    strings,
    unsupported,
)
from lumen.wire.requests import ChatRequest
from lumen.wire.translate import refuse_incapable, relieved

# The later version takes no temperature at all; this one leaves that to the model.
VERSION = "2023-06-01"
_encode = msgspec.json.Encoder().encode
_MEANINGS = (
    (re.compile(r"prompt is too long|exceed(?:s)? (?:the )?(?:context|maximum context)"), TOO_LONG),
    (re.compile(r"content filtering policy"), FILTERED),
    (re.compile(r"credit balance is too low|spend limit"), LOCKED_OUT),
    (re.compile(r"not support|deprecated for this model|cannot both be specified"), UNSUPPORTED),
)


def make(capabilities: Capabilities) -> Anthropic:
    return Anthropic(capabilities)


def headers(key: str) -> dict[str, str]:
    return {"x-api-key": key, "anthropic-version": VERSION}


class Anthropic:
    """The dialect with one target's capabilities."""

    __slots__ = ("can",)

    def __init__(self, can: Capabilities) -> None:
        self.can = can

    def encode(self, call: Call, model: str, resume: Resume | None) -> HttpCall:
        """The request for `model`. A conversation that ends with an assistant message is continued by the model.

        Raises:
            RefusedError: `unsupported_by_target`, with the field as its `param`.
        """
        request = call.request
        if not isinstance(request, ChatRequest):
            raise unsupported(None, f"the endpoint '{call.operation}': its API has none like it.")
        if resume is not None and resume.token_ids:
            raise unsupported("resume_token_ids", "it takes no token ids.")
        if call.lent:
            request = relieved(request, call.lent, REFUSED)
        refuse_incapable(request, tools=self.can.tools, seed=self.can.seed, json_schema=self.can.json_schema)
        body = encode_chat(request, model, stream=call.stream, images=self.can.images)
        return HttpCall("messages", _encode(body), "text/event-stream" if call.stream else "application/json")

    def decoder(self, call: Call, content_type: str, resume: Resume | None) -> Decoder:
        check_kind(content_type, stream=call.stream)
        writer = writer_for(call, resume)
        by_tool = isinstance(call.request, ChatRequest) and answers_by_tool(call.request)
        if call.stream:
            return MessageStream(writer, by_tool=by_tool)
        return WholeDecoder(partial(_read, writer, by_tool), MAX_ANSWER)

    def refusal(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        told = strings(error_object(body))
        return reread(refused(status, headers, told, trusted=self.can.local), _MEANINGS)


def _read(writer: Writer, by_tool: bool, body: bytes) -> Event:
    return read_message(writer, body, by_tool=by_tool)
