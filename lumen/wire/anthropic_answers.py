"""Answers of the Anthropic Messages API, whole and streamed, as events in the OpenAI dialect. Pure.

Source: the public reference (streaming messages, stop reasons, errors). `input_tokens` leaves out what the
vendor's cache took and gave, so the three counts are added up.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from lumen.core.errors import BrokenError, RefusedError
from lumen.wire.answers import Usage
from lumen.wire.anthropic import JSON_TOOL
from lumen.wire.call import Event
from lumen.wire.chunks import Writer, counts, message, tool_more, tool_start, unreadable
from lumen.wire.decoding import StreamDecoder
from lumen.wire.refusals import in_answer, locked_out

_FINISHES = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}
_CREDENTIALS = frozenset({"authentication_error", "permission_error", "billing_error"})
_compact = msgspec.json.Encoder().encode


class _OutputDetails(Struct):
    thinking_tokens: int | None = None


class _Usage(Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens_details: _OutputDetails | None = None


class _Block(Struct):
    type: str
    id: str = ""
    name: str = ""
    text: str = ""
    thinking: str = ""
    input: Any = None


class _Delta(Struct):
    type: str = ""
    text: str = ""
    thinking: str = ""
    partial_json: str = ""
    stop_reason: str | None = None
    stop_details: Any = None


class _Message(Struct):
    type: str = ""
    id: str | None = None
    model: str | None = None
    content: list[_Block] | None = None
    stop_reason: str | None = None
    stop_details: Any = None
    usage: _Usage | None = None
    error: Any = None


class _StreamEvent(Struct):
    type: str
    index: int = 0
    message: _Message | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: _Usage | None = None
    error: Any = None


_event = msgspec.json.Decoder(_StreamEvent).decode
_message = msgspec.json.Decoder(_Message).decode


class MessageStream(StreamDecoder):
    """One streamed answer.

    Args:
        by_tool: the input of `JSON_TOOL` is the answer's text.
    """

    __slots__ = ("_begun", "_by_tool", "_calls", "_finished", "_open", "_usage", "_writer")

    def __init__(self, writer: Writer, *, by_tool: bool) -> None:
        super().__init__()
        self._writer = writer
        self._by_tool = by_tool
        self._usage = _Usage()
        self._begun = False
        self._finished = False
        self._calls = 0
        # The call being made: its number (none where its input is the answer), and whether any of it was sent.
        self._open: tuple[int | None, bool, Any] | None = None

    def _take(self, payload: bytes, events: list[Event]) -> None:
        try:
            event = _event(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise unreadable("stream") from None
        match event.type:
            case "content_block_delta":
                self._delta(event.delta or _Delta(), events)
            case "content_block_start":
                self._block(event.content_block, events)
            case "content_block_stop":
                self._close(events)
            case "message_start" if event.message is not None:
                self._writer.named(event.message.id, event.message.model)
                self._merge(event.message.usage)
                self._begin(events)
            case "message_delta":
                self._merge(event.usage)
                self._finish(event.delta or _Delta(), events)
            case "message_stop":
                self.done = self._finished
            case "error":
                raise _reported(event.error)

    def _end(self) -> None:
        if not self.done:
            raise BrokenError("The target's stream ended before the answer did.", phase="stream")

    def _begin(self, events: list[Event]) -> None:
        if not self._begun:
            self._begun = True
            self._writer.role(0, events)

    def _say(self, delta: dict[str, Any], events: list[Event]) -> None:
        self._begin(events)
        events.append(self._writer.chunk(0, delta))

    def _block(self, block: _Block | None, events: list[Event]) -> None:
        if block is None:
            raise unreadable("stream")
        if block.type == "tool_use":
            if self._by_tool and block.name == JSON_TOOL:
                self._open = (None, False, block.input)
                return
            self._open = (self._calls, False, block.input)
            self._say(tool_start(self._calls, block.id, block.name), events)
            self._calls += 1
        elif block.type == "text" and block.text:
            self._say({"content": block.text}, events)

    def _delta(self, delta: _Delta, events: list[Event]) -> None:
        if delta.text:
            self._say({"content": delta.text}, events)
        elif delta.partial_json and self._open is not None:
            number = self._open[0]
            self._open = (number, True, None)
            self._input(number, delta.partial_json, events)
        elif delta.thinking:
            self._say({"reasoning_content": delta.thinking}, events)

    def _close(self, events: list[Event]) -> None:
        """A call without arguments, or one that came in one piece, has sent no fragment of them."""
        if self._open is not None:
            number, sent, given = self._open
            self._open = None
            if not sent:
                self._input(number, _json(given), events)

    def _input(self, number: int | None, text: str, events: list[Event]) -> None:
        self._say({"content": text} if number is None else tool_more(number, text), events)

    def _merge(self, usage: _Usage | None) -> None:
        """Counts are cumulative; what an event does not tell stands."""
        for name in _Usage.__struct_fields__ if usage is not None else ():
            if (value := getattr(usage, name)) is not None:
                setattr(self._usage, name, value)

    def _finish(self, delta: _Delta, events: list[Event]) -> None:
        if delta.stop_reason is None or self._finished:
            return
        finish = _finish(delta.stop_reason, called=self._calls > 0, phase="stream")
        self._begin(events)
        if finish == "content_filter" and (why := _why(delta.stop_details)):
            self._say({"refusal": why}, events)
        self._finished = True
        events.append(self._writer.chunk(0, {}, finish))
        if (usage := _counted(self._usage)) is not None:
            events.append(self._writer.usage(usage))


def read_message(writer: Writer, body: bytes, *, by_tool: bool) -> Event:
    """One whole answer.

    Raises:
        UpstreamError: it reports a failure, or is no answer.
    """
    try:
        told = _message(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise unreadable("body") from None
    if told.error is not None:
        raise _reported(told.error)
    if told.content is None or told.stop_reason is None:
        raise unreadable("body")
    writer.named(told.id, told.model)
    text, reasoning, calls = [], [], []
    for block in told.content:
        if block.type == "tool_use" and by_tool and block.name == JSON_TOOL:
            text.append(_json(block.input))
        elif block.type == "tool_use":
            function = {"name": block.name, "arguments": _json(block.input)}
            calls.append({"id": block.id, "type": "function", "function": function})
        elif block.type == "text":
            text.append(block.text)
        elif block.type == "thinking" and block.thinking:
            reasoning.append(block.thinking)
    finish = _finish(told.stop_reason, called=bool(calls), phase="body")
    refusal = _why(told.stop_details) if finish == "content_filter" else None
    choice = {"index": 0, "message": message(text, reasoning, calls, refusal), "finish_reason": finish}
    return writer.whole([choice], _counted(told.usage or _Usage()))


def _finish(reason: str, *, called: bool, phase: str) -> str:
    finish = _FINISHES.get(reason)
    if finish is None:
        raise RefusedError(
            "The target ended its answer for a reason that cannot be passed on.", phase=phase, upstream_status=200
        )
    # Where a tool's input is the answer, no tool was called.
    return "stop" if finish == "tool_calls" and not called else finish


def _counted(usage: _Usage) -> Usage | None:
    if usage.input_tokens is None or usage.output_tokens is None:
        return None
    written, cached = usage.cache_creation_input_tokens, usage.cache_read_input_tokens
    details = usage.output_tokens_details
    return counts(
        usage.input_tokens + (written or 0) + (cached or 0),
        usage.output_tokens,
        cached=cached,
        written=written,
        reasoning=None if details is None else details.thinking_tokens,
    )


def _reported(error: Any) -> RefusedError:
    if not isinstance(error, dict):
        return in_answer(error)
    if error.get("type") in _CREDENTIALS:
        return locked_out(200, "stream")
    return in_answer({"message": error.get("message"), "code": error.get("type")})


def _why(details: Any) -> str | None:
    why = details.get("explanation") if isinstance(details, dict) else None
    return why if isinstance(why, str) and why else None


def _json(given: Any) -> str:
    return _compact({} if given is None else given).decode()
