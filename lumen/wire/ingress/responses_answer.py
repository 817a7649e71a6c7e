"""Answers as the OpenAI Responses API gives them, whole and streamed. Pure.

Source: the public reference of the Responses API and of its streaming events.
"""

from __future__ import annotations

from typing import Any

import msgspec

from lumen.core.errors import LumenError
from lumen.wire.answers import Usage
from lumen.wire.ingress.dress import Answer, AnswerPart, CallDelta, decode_answer, encode, named_frame
from lumen.wire.ingress.responses_request import ResponsesRequest

_TEXT, _THOUGHT, _REFUSAL = "output_text", "reasoning_text", "refusal"
# What a part's events are called, and the field its text is in.
_FIELD = {_TEXT: "text", _THOUGHT: "text", _REFUSAL: "refusal"}
_UNFINISHED = {"length": "max_output_tokens", "content_filter": "content_filter"}


class _Open:
    """The item that is being written: its kind of part or the number of its call, and the text so far."""

    __slots__ = ("item", "kind", "logprobs", "pieces")

    def __init__(self, kind: str | int, item: dict[str, Any]) -> None:
        self.kind = kind
        self.item = item
        self.pieces: list[str] = []
        self.logprobs: list[Any] = []


class ResponsesDress:
    """One answer to `given`. `kept`: the gateway keeps it, so that a later request may go on from it."""

    __slots__ = ("_finish", "_given", "_id", "_model", "_open", "_sequence", "_started", "_usage", "kept", "output")

    def __init__(self, given: ResponsesRequest, *, kept: bool = False) -> None:
        self._given = given
        self.kept = kept
        self._id = ""
        self._model = given.model
        self._started: int | None = None
        self._sequence = 0
        self._open: _Open | None = None
        self._finish: str | None = None
        self._usage: Usage | None = None
        # The finished items of the answer.
        self.output: list[dict[str, Any]] = []

    @property
    def id(self) -> str:
        return self._id

    def begin(self, request_id: str) -> None:
        self._id = "resp_" + request_id.removeprefix("req_")

    def chunk(self, data: bytes) -> bytes:
        answer = decode_answer(data)
        frames: list[bytes] = []
        if self._started is None:
            self._begin(answer)
            self._tell(frames, "response.created", response=self._response("in_progress"))
            self._tell(frames, "response.in_progress", response=self._response("in_progress"))
        for choice in answer.choices:
            if choice.delta is not None:
                self._add(choice.delta, _logprobs(choice.logprobs), frames)
            self._finish = choice.finish_reason or self._finish
        self._usage = answer.usage or self._usage
        return b"".join(frames)

    def end(self) -> bytes:
        return self.closed() + self.over()

    def closed(self) -> bytes:
        """The first half of `end`: what closes the last item."""
        frames: list[bytes] = []
        self._close(frames)
        return b"".join(frames)

    def over(self) -> bytes:
        """The second half: the response as a whole."""
        frames: list[bytes] = []
        status = self._status()
        self._tell(frames, f"response.{status}", response=self._response(status))
        return b"".join(frames)

    def failed(self, error: LumenError) -> bytes:
        frames: list[bytes] = []
        told = {"code": error.code or error.type, "message": error.message}
        # The reference has the fields beside `type`, the vendor's own servers within `error`, where its SDKs look.
        about = {**told, "param": error.param}
        self._tell(frames, "error", **about, error={"type": error.type, **about})
        self._tell(frames, "response.failed", response=self._response("failed") | {"error": told})
        return b"".join(frames)

    def whole(self, data: bytes) -> bytes:
        self.take(data)
        return encode(self.response())

    def response(self) -> dict[str, Any]:
        """The response, once the answer is complete."""
        return self._response(self._status())

    def take(self, data: bytes) -> None:
        """Read a whole answer."""
        answer = decode_answer(data)
        choice = answer.choices[0]
        self._begin(answer)
        self._add(choice.message or AnswerPart(), _logprobs(choice.logprobs), [])
        self._finish, self._usage = choice.finish_reason, answer.usage
        self._close([])

    def _begin(self, answer: Answer) -> None:
        self._started = answer.created
        self._model = answer.model or self._model

    def _status(self) -> str:
        return "incomplete" if self._finish in _UNFINISHED else "completed"

    # -- items -------------------------------------------------------------------------------------------

    def _add(self, delta: AnswerPart, logprobs: list[Any], frames: list[bytes]) -> None:
        if delta.thought:
            self._say(_THOUGHT, delta.thought, [], frames)
        if delta.content:
            self._say(_TEXT, delta.content, logprobs, frames)
        if delta.refusal:
            self._say(_REFUSAL, delta.refusal, [], frames)
        for number, call in enumerate(delta.tool_calls or ()):
            # A whole answer's calls carry no number.
            self._call(call.index or number, call, frames)

    def _say(self, kind: str, text: str, logprobs: list[Any], frames: list[bytes]) -> None:
        found = self._open
        if found is None or found.kind != kind:
            found = self._start(kind, frames)
        found.pieces.append(text)
        found.logprobs += logprobs
        told: dict[str, Any] = {"delta": text}
        if kind == _TEXT:
            told["logprobs"] = logprobs
        self._about(frames, f"response.{kind}.delta", found, content_index=0, **told)

    def _start(self, kind: str, frames: list[bytes]) -> _Open:
        self._close(frames)
        item: dict[str, Any]
        if kind == _THOUGHT:
            item = {"id": self._name("rs"), "type": "reasoning", "status": "in_progress", "summary": [], "content": []}
        else:
            item = {"id": self._name("msg"), "type": "message", "status": "in_progress", "role": "assistant"}
            item["content"] = []
        self._open = _Open(kind, item)
        self._tell(frames, "response.output_item.added", output_index=len(self.output), item=item)
        self._about(frames, "response.content_part.added", self._open, content_index=0, part=_part(kind, "", []))
        return self._open

    def _call(self, number: int, call: CallDelta, frames: list[bytes]) -> None:
        found = self._open
        if found is None or found.kind != number:
            self._close(frames)
            item = {"id": self._name("fc"), "type": "function_call", "status": "in_progress", "arguments": ""}
            item |= {"call_id": call.id or "", "name": (call.function.name if call.function else None) or ""}
            found = self._open = _Open(number, item)
            self._tell(frames, "response.output_item.added", output_index=len(self.output), item=item)
        if call.function is not None and call.function.arguments:
            found.pieces.append(call.function.arguments)
            self._about(frames, "response.function_call_arguments.delta", found, delta=call.function.arguments)

    def _close(self, frames: list[bytes]) -> None:
        """End the open item, if any: its text once more as a whole, then the item itself."""
        found = self._open
        if found is None:
            return
        self._open = None
        text = "".join(found.pieces)
        item = {**found.item, "status": "incomplete" if self._finish == "length" else "completed"}
        if isinstance(found.kind, str):
            part = _part(found.kind, text, found.logprobs)
            told: dict[str, Any] = {_FIELD[found.kind]: text}
            if found.kind == _TEXT:
                told["logprobs"] = found.logprobs
            self._about(frames, f"response.{found.kind}.done", found, content_index=0, **told)
            self._about(frames, "response.content_part.done", found, content_index=0, part=part)
            item["content"] = [part]
        else:
            item["arguments"] = text
            done = {"arguments": text, "name": item["name"]}
            self._about(frames, "response.function_call_arguments.done", found, **done)
        self._tell(frames, "response.output_item.done", output_index=len(self.output), item=item)
        self.output.append(item)

    def _name(self, kind: str) -> str:
        return f"{kind}_{self._id.removeprefix('resp_')}{len(self.output):02x}"

    # -- events ------------------------------------------------------------------------------------------

    def _about(self, frames: list[bytes], event: str, open: _Open, **fields: Any) -> None:
        self._tell(frames, event, item_id=open.item["id"], output_index=len(self.output), **fields)

    def _tell(self, frames: list[bytes], event: str, **fields: Any) -> None:
        frames.append(named_frame(event, {"type": event, "sequence_number": self._sequence, **fields}))
        self._sequence += 1

    def _response(self, status: str) -> dict[str, Any]:
        given = self._given
        over = status in ("completed", "incomplete")
        reason = _UNFINISHED.get(self._finish or "")
        tools = msgspec.to_builtins(given.tools or [])
        choice = msgspec.to_builtins(given.tool_choice) if given.tool_choice is not None else "auto"
        text = msgspec.to_builtins(given.text) if given.text is not None else {}
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._started or 0,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": reason} if status == "incomplete" else None,
            "instructions": given.instructions,
            "max_output_tokens": given.max_output_tokens,
            "metadata": given.metadata or {},
            "model": self._model,
            "output": self.output if over or status == "failed" else [],
            "parallel_tool_calls": given.parallel_tool_calls is not False,
            "previous_response_id": given.previous_response_id,
            "reasoning": {"effort": given.reasoning.effort if given.reasoning else None, "summary": None},
            "store": self.kept,
            "temperature": given.temperature,
            "text": {"format": {"type": "text"}, **text},
            "tool_choice": choice,
            "tools": tools,
            "top_p": given.top_p,
            "truncation": "disabled",
            "usage": _usage(self._usage) if over and self._usage is not None else None,
            "user": given.user,
        }


def _part(kind: str, text: str, logprobs: list[Any]) -> dict[str, Any]:
    if kind == _TEXT:
        return {"type": kind, "text": text, "annotations": [], "logprobs": logprobs}
    return {"type": kind, _FIELD[kind]: text}


def _logprobs(given: Any) -> list[Any]:
    found = given.get("content") if isinstance(given, dict) else None
    return found if isinstance(found, list) else []


def _usage(usage: Usage) -> dict[str, Any]:
    cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else None
    thought = usage.completion_tokens_details.reasoning_tokens if usage.completion_tokens_details else None
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": cached or 0, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens or 0,
        "output_tokens_details": {"reasoning_tokens": thought or 0},
        "total_tokens": usage.total_tokens,
    }
