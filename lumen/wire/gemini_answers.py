"""Answers of the Gemini API, whole and streamed, as events in the OpenAI dialect. Pure.

Source: the public reference (`GenerateContentResponse`, `Candidate.FinishReason`, `UsageMetadata`). A stream has no
last word of its own: it is complete when every candidate has its finish reason. `promptTokenCount` includes what
came from the cache; `candidatesTokenCount` leaves out the thoughts.
"""

from __future__ import annotations

import struct
from base64 import b64encode
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from lumen.core.errors import BrokenError, RefusedError, Retry
from lumen.wire.answers import Usage
from lumen.wire.call import Event
from lumen.wire.chunks import Writer, counts, message, tool_start, unreadable, usage_object
from lumen.wire.decoding import StreamDecoder
from lumen.wire.refusals import FILTERED, in_answer, locked_out

_FINISHES = {"STOP": "stop", "MAX_TOKENS": "length", "CONTINUATION": "length"}
_FILTERS = frozenset(
    {
        "SAFETY",
        "RECITATION",
        "LANGUAGE",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
        "ESCALATION",
        "MODEL_ARMOR",
    }
)
_CREDENTIALS = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED"})
_T = TypeVar("_T")
_encode = msgspec.json.Encoder().encode


class _Called(Struct):
    name: str = ""
    id: str | None = None
    args: Any = None


class _Part(Struct, rename="camel"):
    text: str | None = None
    thought: bool = False
    function_call: _Called | None = None
    thought_signature: str | None = None
    inline_data: Any = None


class _Content(Struct):
    parts: list[_Part] | None = None


class _Candidate(Struct, rename="camel"):
    index: int = 0
    content: _Content | None = None
    finish_reason: str | None = None


class _Feedback(Struct, rename="camel"):
    block_reason: str | None = None


class _Counts(Struct, rename="camel"):
    prompt_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None
    cached_content_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None


class _Answer(Struct, rename="camel"):
    candidates: list[_Candidate] | None = None
    prompt_feedback: _Feedback | None = None
    usage_metadata: _Counts | None = None
    model_version: str | None = None
    response_id: str | None = None
    error: Any = None


class _Embedding(Struct):
    values: list[float]


class _Embeddings(Struct, rename="camel"):
    embeddings: list[_Embedding] | None = None
    usage_metadata: _Counts | None = None
    error: Any = None


_answer = msgspec.json.Decoder(_Answer).decode
_embeddings = msgspec.json.Decoder(_Embeddings).decode


class ContentStream(StreamDecoder):
    """One streamed answer with as many choices as were asked for; `most_calls` bounds the tool calls of each."""

    __slots__ = ("_begun", "_calls", "_left", "_most_calls", "_usage", "_writer")

    def __init__(self, writer: Writer, answers: int, most_calls: int | None = None) -> None:
        super().__init__()
        self._writer = writer
        self._most_calls = most_calls
        self._left = set(range(answers))
        self._begun: set[int] = set()
        self._calls: dict[int, int] = {}
        self._usage: Usage | None = None

    def _take(self, payload: bytes, events: list[Event]) -> None:
        told = _read(_answer, payload, "stream")
        _check(told)
        self._writer.named(told.response_id, told.model_version)
        open_before = bool(self._left)
        for candidate in told.candidates or ():
            self._candidate(candidate, events)
        counted = _counted(told.usage_metadata)
        if not self._left and (open_before or self._usage is None):
            # Every event carries the counts so far; those with the last finish reason are the answer's own.
            shown = counted or self._usage
            if shown is not None:
                events.append(self._writer.usage(shown))
            self.done = True
        self._usage = counted or self._usage

    def _end(self) -> None:
        if self._left:
            raise BrokenError("The target's stream ended before the answer did.", phase="stream")

    def _candidate(self, candidate: _Candidate, events: list[Event]) -> None:
        index = candidate.index
        if index not in self._begun:
            self._begun.add(index)
            self._writer.role(index, events)
        for part in (candidate.content.parts if candidate.content else None) or ():
            delta = self._delta(index, part)
            if delta:
                events.append(self._writer.chunk(index, delta))
        if candidate.finish_reason and index in self._left:
            finish = _finish(candidate.finish_reason, called=index in self._calls, phase="stream")
            self._left.discard(index)
            events.append(self._writer.chunk(index, {}, finish))

    def _delta(self, index: int, part: _Part) -> dict[str, Any]:
        if part.function_call is not None:
            number = self._calls.get(index, 0)
            if number == self._most_calls:
                return {}
            self._calls[index] = number + 1
            call = _call(self._writer, index, number, part)
            function = call["function"]
            return tool_start(number, call["id"], function["name"], function["arguments"], call.get("extra_content"))
        if part.inline_data is not None:
            raise _untold("stream")
        if not part.text:
            return {}
        return {"reasoning_content" if part.thought else "content": part.text}


def read_answer(writer: Writer, answers: int, most_calls: int | None, body: bytes) -> Event:
    """One whole answer; `most_calls` bounds the tool calls of each of its choices.

    Raises:
        UpstreamError: it reports a failure, or is no answer.
    """
    told = _read(_answer, body, "body")
    _check(told)
    writer.named(told.response_id, told.model_version)
    choices = [_choice(writer, candidate, most_calls) for candidate in told.candidates or ()]
    if len(choices) < answers:
        raise unreadable("body")
    return writer.whole(choices, _counted(told.usage_metadata))


def read_embeddings(writer: Writer, many: int, encoding: str | None, body: bytes) -> Event:
    """The vectors of `batchEmbedContents`, in the order they were asked for.

    Raises:
        UpstreamError: it reports a failure, or is no answer.
    """
    told = _read(_embeddings, body, "body")
    if told.error is not None:
        raise _reported(told.error)
    if told.embeddings is None or len(told.embeddings) != many:
        raise unreadable("body")
    data = [
        {"object": "embedding", "index": i, "embedding": _vector(found.values, encoding)}
        for i, found in enumerate(told.embeddings)
    ]
    made: dict[str, Any] = {"object": "list", "data": data, "model": writer.model}
    usage = _counted(told.usage_metadata)
    if usage is not None:
        made["usage"] = usage_object(usage)
    return Event(_encode(made), True, (), usage)


def _choice(writer: Writer, candidate: _Candidate, most_calls: int | None) -> dict[str, Any]:
    text: list[str] = []
    reasoning: list[str] = []
    calls: list[dict[str, Any]] = []
    for part in (candidate.content.parts if candidate.content else None) or ():
        if part.function_call is not None:
            if len(calls) != most_calls:
                calls.append(_call(writer, candidate.index, len(calls), part))
        elif part.inline_data is not None:
            raise _untold("body")
        elif part.text:
            (reasoning if part.thought else text).append(part.text)
    if candidate.finish_reason is None:
        raise unreadable("body")
    finish = _finish(candidate.finish_reason, called=bool(calls), phase="body")
    return {"index": candidate.index, "message": message(text, reasoning, calls), "finish_reason": finish}


def _call(writer: Writer, index: int, number: int, part: _Part) -> dict[str, Any]:
    called = part.function_call
    assert called is not None
    # Older models give calls no ids; ours must differ from those of other answers in the conversation.
    id = called.id or f"call_{writer.identity[0].removeprefix('chatcmpl-')}_{index}_{number}"
    function = {"name": called.name, "arguments": _encode(called.args or {}).decode()}
    made: dict[str, Any] = {"id": id, "type": "function", "function": function}
    if part.thought_signature:
        made["extra_content"] = {"google": {"thought_signature": part.thought_signature}}
    return made


def _read(decode: Callable[[bytes], _T], body: bytes, phase: str) -> _T:
    try:
        return decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise unreadable(phase) from None


def _check(told: _Answer) -> None:
    if told.error is not None:
        raise _reported(told.error)
    if not told.candidates and told.prompt_feedback is not None and told.prompt_feedback.block_reason:
        raise RefusedError(
            "The target's content filter refused the prompt.",
            phase="first_token",
            upstream_status=200,
            status=400,
            type="invalid_request_error",
            code=FILTERED,
            retry=Retry.NEVER,
        )


def _finish(reason: str, *, called: bool, phase: str) -> str:
    if reason in _FILTERS:
        return FILTERED
    finish = _FINISHES.get(reason)
    if finish is None:
        # Such as a call that cannot be parsed: nothing a client could make an answer of.
        raise RefusedError(
            "The target ended its answer for a reason that cannot be passed on.", phase=phase, upstream_status=200
        )
    return "tool_calls" if finish == "stop" and called else finish


def _counted(told: _Counts | None) -> Usage | None:
    if told is None or told.prompt_token_count is None:
        return None
    thoughts = told.thoughts_token_count
    return counts(
        told.prompt_token_count + (told.tool_use_prompt_token_count or 0),
        (told.candidates_token_count or 0) + (thoughts or 0),
        cached=told.cached_content_token_count,
        reasoning=thoughts,
    )


def _reported(error: Any) -> RefusedError:
    if not isinstance(error, dict):
        return in_answer(error)
    if error.get("status") in _CREDENTIALS:
        return locked_out(200, "stream")
    return in_answer({"message": error.get("message"), "code": error.get("status")})


def _untold(phase: str) -> RefusedError:
    return RefusedError(
        "The target answered with media, which the chat API cannot pass on.", phase=phase, upstream_status=200
    )


def _vector(values: list[float], encoding: str | None) -> list[float] | str:
    if encoding != "base64":
        return values
    return b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
