"""Answers as the Anthropic Messages API gives them, whole and streamed. Pure.

Source: the public reference (streaming messages, stop reasons, errors), version 2023-06-01.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from lumen.core.errors import LumenError
from lumen.wire.answers import Usage
from lumen.wire.ingress.dress import Answer, AnswerChoice, AnswerPart, CallDelta, decode_answer, encode, named_frame

_STOPS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_TEXT, _THOUGHT = "text", "thinking"
_any = msgspec.json.Decoder().decode


class MessagesDress:
    """One answer. Content blocks are opened as their kind changes, and closed before the next."""

    __slots__ = ("_begun", "_block", "_id", "_index", "_request_id", "_stop", "_usage")

    def __init__(self) -> None:
        self._begun = False
        self._request_id = ""
        # The open block: its kind, or the number of the tool call it holds.
        self._block: str | int | None = None
        self._index = -1
        self._stop: tuple[str, str | None] | None = None
        self._usage: Usage | None = None

    def begin(self, request_id: str) -> None:
        self._request_id = request_id

    def chunk(self, data: bytes) -> bytes:
        answer = decode_answer(data)
        frames: list[bytes] = []
        if not self._begun:
            self._begun = True
            message = self._message(answer, [], None, Usage())
            frames.append(named_frame("message_start", {"type": "message_start", "message": message}))
        for choice in answer.choices:
            if choice.delta is not None:
                self._add(choice.delta, frames)
            if choice.finish_reason is not None:
                self._stop = _stop(choice)
        if answer.usage is not None:
            self._usage = answer.usage
        return b"".join(frames)

    def end(self) -> bytes:
        frames: list[bytes] = []
        self._close(frames)
        stop, sequence = self._stop or ("end_turn", None)
        delta = {"stop_reason": stop, "stop_sequence": sequence}
        told = {"type": "message_delta", "delta": delta, "usage": _usage(self._usage or Usage())}
        frames.append(named_frame("message_delta", told))
        frames.append(named_frame("message_stop", {"type": "message_stop"}))
        return b"".join(frames)

    def failed(self, error: LumenError) -> bytes:
        return named_frame("error", error_object(error, self._request_id))

    def whole(self, data: bytes) -> bytes:
        answer = decode_answer(data)
        choice = answer.choices[0]
        message = choice.message or AnswerPart()
        blocks: list[dict[str, Any]] = []
        if message.thought:
            blocks.append({"type": _THOUGHT, "thinking": message.thought, "signature": ""})
        if text := message.content or message.refusal:
            blocks.append({"type": _TEXT, "text": text})
        for call in message.tool_calls or ():
            assert call.function is not None
            given = _input(call.function.arguments or "")
            blocks.append({"type": "tool_use", "id": call.id, "name": call.function.name, "input": given})
        return encode(self._message(answer, blocks, _stop(choice), answer.usage or Usage()))

    def _message(
        self, answer: Answer, blocks: list[dict[str, Any]], stop: tuple[str, str | None] | None, usage: Usage
    ) -> dict[str, Any]:
        reason, sequence = stop or (None, None)
        return {
            "id": answer.id,
            "type": "message",
            "role": "assistant",
            "model": answer.model,
            "content": blocks,
            "stop_reason": reason,
            "stop_sequence": sequence,
            "usage": _usage(usage),
        }

    def _add(self, delta: AnswerPart, frames: list[bytes]) -> None:
        if thought := delta.thought:
            self._open(_THOUGHT, {"type": _THOUGHT, "thinking": "", "signature": ""}, frames)
            self._delta({"type": "thinking_delta", "thinking": thought}, frames)
        if text := delta.content or delta.refusal:
            self._open(_TEXT, {"type": _TEXT, "text": ""}, frames)
            self._delta({"type": "text_delta", "text": text}, frames)
        for call in delta.tool_calls or ():
            self._call(call, frames)

    def _call(self, call: CallDelta, frames: list[bytes]) -> None:
        function = call.function
        name = (function.name if function else None) or ""
        self._open(call.index, {"type": "tool_use", "id": call.id or "", "name": name, "input": {}}, frames)
        if function is not None and function.arguments:
            self._delta({"type": "input_json_delta", "partial_json": function.arguments}, frames)

    def _open(self, block: str | int, content: dict[str, Any], frames: list[bytes]) -> None:
        if self._block == block:
            return
        self._close(frames)
        self._block = block
        self._index += 1
        start = {"type": "content_block_start", "index": self._index, "content_block": content}
        frames.append(named_frame("content_block_start", start))

    def _delta(self, delta: dict[str, Any], frames: list[bytes]) -> None:
        told = {"type": "content_block_delta", "index": self._index, "delta": delta}
        frames.append(named_frame("content_block_delta", told))

    def _close(self, frames: list[bytes]) -> None:
        if self._block is not None:
            self._block = None
            told = {"type": "content_block_stop", "index": self._index}
            frames.append(named_frame("content_block_stop", told))


def error_object(error: LumenError, request_id: str = "") -> dict[str, Any]:
    """The error as this API's clients know it; `param` goes into the message, which has no other place for it."""
    kind = _ERRORS.get(error.status) or ("invalid_request_error" if error.status < 500 else "api_error")
    told: dict[str, Any] = {"type": "error", "error": {"type": kind, "message": error.message}}
    if request_id:
        told["request_id"] = request_id
    return told


def messages_error(error: LumenError, request_id: str) -> bytes:
    """The body of an answer that is an error."""
    return encode(error_object(error, request_id))


def model_fields(name: str, created: int) -> dict[str, Any]:
    """What this API's clients look for in a model beside its `id`; `created`: in seconds of the epoch."""
    return {"type": "model", "display_name": name, "created_at": f"{datetime.fromtimestamp(created, UTC):%FT%TZ}"}


def page_fields(names: Sequence[str]) -> dict[str, Any]:
    """The same of a list that holds all there are."""
    return {"has_more": False, "first_id": names[0] if names else None, "last_id": names[-1] if names else None}


def _stop(choice: AnswerChoice) -> tuple[str, str | None]:
    """Stop reason and, where the target tells which one it was, the stop sequence."""
    reason = _STOPS.get(choice.finish_reason or "stop", "end_turn")
    if reason == "end_turn" and isinstance(choice.stop_reason, str):
        return "stop_sequence", choice.stop_reason
    return reason, None


def _usage(usage: Usage) -> dict[str, Any]:
    """The API counts what a cache gave apart from what was read anew."""
    cached = (usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else None) or 0
    return {
        "input_tokens": max(usage.prompt_tokens - cached, 0),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": usage.completion_tokens or 0,
    }


def _input(arguments: str) -> Any:
    """Arguments as the object they should be; a model's broken JSON is handed on under a name that says so."""
    try:
        found = _any(arguments) if arguments.strip() else {}
    except (msgspec.MsgspecError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {"invalid_json": arguments}
