"""The OpenAI dialect: most vendors, and Lumen's own worker, which also speaks token ids."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache, partial
from operator import attrgetter
from typing import Any

import msgspec
from msgspec.structs import replace

from lumen.core.errors import BrokenError, MalformedError, UpstreamError
from lumen.core.retry import CONTEXT_CODES, FILTER_CODES
from lumen.providers.base import MAX_ANSWER, Capabilities, Decoder, HttpCall, Resume
from lumen.wire.answers import Choice, Chunk, Usage, Whole
from lumen.wire.call import SEED, Call, Event
from lumen.wire.decoding import StreamDecoder, WholeDecoder, check_kind
from lumen.wire.extras import accepted
from lumen.wire.refusals import (
    FILTERED,
    TOO_LONG,
    error_object,
    in_answer,
    refused,
    reread,
    strings,
    unsupported,
)
from lumen.wire.requests import (
    LOCAL_ONLY,
    SAMPLERS,
    ChatRequest,
    CompletionRequest,
    ContinuedChat,
    Plain,
    StreamOptions,
)
from lumen.wire.sse import DONE
from lumen.wire.translate import NEUTRAL

_encode = msgspec.json.Encoder().encode
_chunk = msgspec.json.Decoder(Chunk).decode
_whole = msgspec.json.Decoder(Whole).decode
_any = msgspec.json.Decoder().decode
# What vendors and servers say of a prompt beyond their window, or one that their filter refused, without a code for it.
_FLAGGED = re.compile(r"flagged|inappropriate content|usage guidelines|content management policy", re.I)
_MEANINGS = (
    (
        re.compile(
            r"maximum (?:context|prompt|input) length|(?:model's|available|exceeds the) context (?:length|window|size)"
            r"|prompt is too long|too many tokens|exceed(?:s|ed) model token limit|reduce the length of the messages"
            r"|tokens\W+\+\W+max_new_tokens|range of input length",
            re.I,
        ),
        TOO_LONG,
    ),
    (_FLAGGED, FILTERED),
)
_NAMED = CONTEXT_CODES | FILTER_CODES
_WITH_USAGE = StreamOptions(include_usage=True)
_samplers = attrgetter(*SAMPLERS)
_NO_SAMPLERS = (None,) * len(SAMPLERS)


def make(capabilities: Capabilities) -> OpenAI:
    return OpenAI(capabilities)


def headers(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


class OpenAI:
    """The dialect with one target's capabilities."""

    __slots__ = ("can", "extended", "local", "token_ids")

    def __init__(self, can: Capabilities) -> None:
        self.can = can
        self.token_ids = can.token_ids
        self.local = can.local
        self.extended = can.local or can.samplers

    def encode(self, call: Call, model: str, resume: Resume | None) -> HttpCall:
        """The request for `model`.

        Raises:
            RefusedError: `unsupported_by_target`: it asks for what this target does not do and would not say so.
        """
        given = call.request
        if not self.extended and not isinstance(given, Plain):
            _refuse_samplers(given, call.lent)
        # A copy in every case; only local engines understand some of the fields.
        request = replace(given, model=model, **({} if self.extended else _not_passed_on(type(given))))
        if not isinstance(request, Plain):
            if isinstance(request, ContinuedChat) and isinstance(given, ContinuedChat) and not self.extended:
                request.continue_final_message = given.continue_final_message or None
            if call.answers > 1 and not self.can.n and (request.n or 1) > 1:
                raise unsupported("n", "it gives one answer a request.")
            if not self.token_ids and SEED in call.lent:
                request.seed = None
            if isinstance(request, ChatRequest):
                self._name_limit(request)
                request.messages = accepted(
                    request.messages, reasoning=self.can.reasoning_content, extra=self.can.extra_content
                )
            if call.stream and self.can.stream_usage:
                # Metering needs the counts whether or not the client does.
                request.stream_options = _WITH_USAGE
            if call.stream and self.token_ids and call.answers == 1:
                request.return_token_ids = True
            if resume is not None:
                request.resume_token_ids = list(resume.token_ids)
        accept = "text/event-stream" if call.stream else "application/json"
        return HttpCall(call.operation.value, _encode(request), accept)

    def _name_limit(self, request: ChatRequest) -> None:
        """Write the answer's limit in the one field that the target knows, whichever the client used."""
        most = request.max_completion_tokens or request.max_tokens
        if self.can.max_tokens_field == "max_tokens":
            request.max_tokens, request.max_completion_tokens = most, None
        elif self.can.max_tokens_field == "max_completion_tokens":
            request.max_tokens, request.max_completion_tokens = None, most

    def decoder(self, call: Call, content_type: str, resume: Resume | None) -> Decoder:
        check_kind(content_type, stream=call.stream)
        if call.stream:
            return OpenAIStream(call, self.token_ids, resume)
        return WholeDecoder(partial(_read_whole, call), MAX_ANSWER)

    def refusal(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        told = strings(error_object(body))
        if status == 403 and _FLAGGED.search(told.get("message", "")):
            # Some vendors' filters answer so; nothing is wrong with the key.
            status = 400
        error = refused(status, headers, told, trusted=self.local)
        return error if self.local or error.code in _NAMED else reread(error, _MEANINGS)


def _refuse_samplers(request: ChatRequest | CompletionRequest, lent: Sequence[str]) -> None:
    """What only engines understand is left out, but not where the client itself asks for it.

    Raises:
        RefusedError: `unsupported_by_target`: it does.
    """
    values = _samplers(request)
    # Looked at one by one only where there is one: this is on the path of every request.
    for name, value in zip(SAMPLERS, values, strict=True) if values != _NO_SAMPLERS else ():
        if value is not None and name not in lent and value not in NEUTRAL.get(name, ()):
            raise unsupported(name, "it does not know this sampling setting.")


@cache
def _not_passed_on(kind: type[msgspec.Struct]) -> dict[str, None]:
    """The fields that only local engines understand, of one kind of request, without a value."""
    return dict.fromkeys(name for name in LOCAL_ONLY if name in kind.__struct_fields__)


class OpenAIStream(StreamDecoder):
    """Forwards the upstream's own bytes unless a field must change."""

    __slots__ = ("_counts", "_identified", "_identity", "_include_usage", "_left", "_rewrite", "_strip")

    def __init__(self, call: Call, token_ids: bool, resume: Resume | None) -> None:
        super().__init__()
        self._include_usage = call.include_usage
        # Counts that came beside something else, as the chunk that tells the client of them.
        self._counts: dict[str, Any] | None = None
        self._left = set(range(call.answers))
        self._identity = resume.identity if resume else None
        self._identified = False
        self._strip = not call.token_ids
        # Only a target that streams token ids can be resumed, and only its events ever need rewriting.
        self._rewrite = token_ids and call.answers == 1

    def _end(self) -> None:
        if self._left:
            raise BrokenError("The target's stream ended before the answer did.", phase="stream")

    def _take(self, payload: bytes, events: list[Event]) -> None:
        if payload == DONE:
            self.done = not self._left
            self._tell(events)
            return
        try:
            chunk = _chunk(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise MalformedError("The target sent an event that is not a chunk.", phase="stream") from None
        if chunk.error is not None:
            raise in_answer(chunk.error)
        if not chunk.choices:
            if chunk.usage is not None:
                self._counts = None
            shown = payload if chunk.usage is not None and self._include_usage else b""
            if shown and self._rewrite:
                shown = self._rewritten(shown)[0]
            events.append(Event(shown, usage=chunk.usage))
            return
        known = None
        if self._rewrite:
            payload, known = self._rewritten(payload)
        else:
            if not self._identified:
                self._identified, known = True, identity(payload)
            if chunk.usage is not None and self._include_usage:
                payload = self._apart(payload)
        event = _event(chunk.choices, payload, chunk.usage, known)
        if event.finished:
            self._left.difference_update(event.finished)
        events.append(event)
        if chunk.usage is not None and not self._left:
            self._tell(events)

    def finish(self) -> list[Event]:
        events = super().finish()
        self._tell(events)
        return events

    def _apart(self, payload: bytes) -> bytes:
        """The payload without its counts, which clients expect once, in a chunk of their own."""
        whole: dict[str, Any] = _any(payload)
        counts = whole.pop("usage")
        self._counts = {**whole, "choices": [], "usage": counts}
        return _encode(whole)

    def _tell(self, events: list[Event]) -> None:
        """The counts that were taken out, and no others after them."""
        if self._counts is not None and not self._left:
            events.append(Event(_encode(self._counts)))
            self._counts, self._include_usage = None, False

    def _rewritten(self, payload: bytes) -> tuple[bytes, tuple[str, int] | None]:
        """The payload without token ids the client did not ask for, under the answer's first id and time."""
        whole: dict[str, Any] = _any(payload)
        if self._identity is not None:
            whole["id"], whole["created"] = self._identity
        if self._strip:
            whole.pop("prompt_token_ids", None)
            for choice in whole["choices"]:
                choice.pop("token_ids", None)
                choice.pop("prompt_token_ids", None)
        return _encode(whole), (whole.get("id", ""), whole.get("created", 0))


def _event(choices: list[Choice], payload: bytes, usage: Usage | None, identity: tuple[str, int] | None) -> Event:
    """What a chunk says, in the terms of the path."""
    text, ids = None, None
    content = actionable = reasoning = False
    finished: tuple[int, ...] = ()
    for choice in choices:
        delta = choice.delta
        if delta is None:
            said = choice.text
        else:
            said = delta.content
            if delta.tool_calls or delta.refusal:
                content = actionable = True
            if delta.reasoning_content or delta.reasoning:
                content = reasoning = True
        if said:
            content, text = True, said
        if choice.token_ids is not None:
            ids = choice.token_ids
        if choice.finish_reason:
            finished += (choice.index,)
    if choice.index or len(choices) > 1:
        text = None
    return Event(payload, content, finished, usage, ids, identity, text, actionable, reasoning)


def identity(payload: bytes) -> tuple[str, int] | None:
    """The id and time an answer goes by; a server that sends neither has none."""
    whole: dict[str, Any] = _any(payload)
    name, created = whole.get("id"), whole.get("created")
    if not isinstance(name, str):
        return None
    return name, created if isinstance(created, int) else 0


def _read_whole(call: Call, body: bytes) -> Event:
    """One whole answer: a single event, the upstream's own bytes."""
    try:
        whole = _whole(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise MalformedError("The target's answer is not what its dialect says.", phase="body") from None
    if whole.error is not None:
        raise in_answer(whole.error)
    finished = tuple(c.index for c in whole.choices or () if c.finish_reason)
    if len(finished) < call.answers or (whole.choices is None and whole.data is None):
        raise MalformedError("The target's answer has no finish reason.", phase="body")
    return Event(body, True, finished, whole.usage)
