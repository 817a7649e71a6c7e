"""How the emulated provider says things in each of the three dialects. No I/O."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from tests.emulator.script import Script, tool_name

PROMPT_TOKENS = 7


class Speaker(ABC):
    """One answer of a dialect. `tokens` is what the answer claims to have cost, whatever it did."""

    def __init__(self, model: str, body: dict[str, Any], script: Script) -> None:
        self.model = model
        self.body = body
        self.kind = script.kind
        self.many = 1
        # How many pieces the client has already.
        self.before = 0

    @abstractmethod
    def start(self) -> bytes: ...

    @abstractmethod
    def piece(self, text: str, index: int) -> bytes: ...

    @abstractmethod
    def close(self, tokens: int | None) -> bytes:
        """The finish reason and the counts, if there are any."""

    def done(self) -> bytes:
        """The last words, after which the answer is complete."""
        return b""

    @abstractmethod
    def failure(self) -> bytes:
        """An error in the middle of a stream."""

    @abstractmethod
    def whole(self, pieces: Sequence[str], tokens: int, *, finished: bool) -> dict[str, Any]: ...

    @abstractmethod
    def refusal(self, status: int, message: str, code: str) -> dict[str, Any]: ...

    def thought(self) -> str:
        return "let me think"


def event(payload: dict[str, Any], name: str | None = None) -> bytes:
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + json.dumps(payload).encode() + b"\n\n"


class OpenAI(Speaker):
    """Chat completions, and completions where the request has a prompt.

    Like Lumen's own worker it tells token ids where it is asked to, one for each piece, and goes on from some.
    """

    def __init__(self, model: str, body: dict[str, Any], script: Script) -> None:
        super().__init__(model, body, script)
        self.many = body.get("n") or 1
        self.plain = "prompt" in body
        self.before = len(body.get("resume_token_ids") or ())
        self._tells_ids = bool(body.get("return_token_ids"))
        self._said = self.before
        self._begun: set[int] = {0} if self.before else set()

    def start(self) -> bytes:
        if self.before:
            return b""
        return b"".join(self._delta({"role": "assistant", "content": ""}, i) for i in range(self.many))

    def piece(self, text: str, index: int) -> bytes:
        first, made = index not in self._begun, b""
        self._begun.add(index)
        if self.kind == "tool":
            call: dict[str, Any] = {"index": 0, "function": {"arguments": text}}
            if first:
                call |= {"id": f"call_{index}", "type": "function"}
                call["function"]["name"] = tool_name(self.body)
            return self._delta({"tool_calls": [call]}, index, token=True)
        if self.kind == "think" and first:
            made = self._delta({"reasoning_content": self.thought()}, index)
        return made + self._delta({"content": text}, index, token=True)

    def close(self, tokens: int | None) -> bytes:
        made = b"".join(self._delta({}, i, self._finish()) for i in range(self.many))
        if tokens is not None and (self.body.get("stream_options") or {}).get("include_usage"):
            made += event(self._object(".chunk", []) | {"usage": self._usage(tokens)})
        return made

    def done(self) -> bytes:
        return b"data: [DONE]\n\n"

    def failure(self) -> bytes:
        return event({"error": {"message": "scripted", "code": "overloaded"}})

    def whole(self, pieces: Sequence[str], tokens: int, *, finished: bool) -> dict[str, Any]:
        text, finish = "".join(pieces), self._finish() if finished else None
        choices: list[dict[str, Any]] = []
        for i in range(self.many):
            said: dict[str, Any] = {"role": "assistant", "content": text}
            if self.kind == "tool":
                function = {"name": tool_name(self.body), "arguments": text}
                said |= {"content": None, "tool_calls": [{"id": f"call_{i}", "type": "function", "function": function}]}
            if self.kind == "think":
                said["reasoning_content"] = self.thought()
            told = {"text": text} if self.plain else {"message": said}
            choices.append({"index": i, **told, "finish_reason": finish})
        return self._object("", choices) | {"usage": self._usage(tokens)}

    def refusal(self, status: int, message: str, code: str) -> dict[str, Any]:
        return {"error": {"message": message, "type": "scripted", "param": None, "code": code}}

    def _finish(self) -> str:
        return "tool_calls" if self.kind == "tool" else "stop"

    def _delta(self, delta: dict[str, Any], index: int, finish: str | None = None, *, token: bool = False) -> bytes:
        said = {"text": delta.get("content", "")} if self.plain else {"delta": delta}
        if self._tells_ids:
            self._said += token
            said["token_ids"] = [self._said] if token else []
        return event(self._object(".chunk", [{"index": index, **said, "finish_reason": finish}]))

    def _object(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        kind = "text_completion" if self.plain else "chat.completion" + kind
        return {"id": "up-1", "object": kind, "created": 1, "model": self.model, "choices": choices}

    def _usage(self, tokens: int) -> dict[str, int]:
        return {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": tokens, "total_tokens": PROMPT_TOKENS + tokens}


class Anthropic(Speaker):
    """The Messages API."""

    def __init__(self, model: str, body: dict[str, Any], script: Script) -> None:
        super().__init__(model, body, script)
        self._block = 0

    def start(self) -> bytes:
        empty = self._object([], None) | {"usage": {"input_tokens": PROMPT_TOKENS, "output_tokens": 1}}
        made = self._event("message_start", message=empty)
        if self.kind == "think":
            made += self._start({"type": "thinking", "thinking": "", "signature": ""})
            made += self._delta({"type": "thinking_delta", "thinking": self.thought()})
            made += self._delta({"type": "signature_delta", "signature": "c2lnbmVk"}) + self._stop()
        if self.kind == "tool":
            made += self._start({"type": "tool_use", "id": "toolu_0", "name": tool_name(self.body), "input": {}})
        else:
            made += self._start({"type": "text", "text": ""})
        return made + self._event("ping")

    def piece(self, text: str, index: int) -> bytes:
        if self.kind == "tool":
            return self._delta({"type": "input_json_delta", "partial_json": text})
        return self._delta({"type": "text_delta", "text": text})

    def close(self, tokens: int | None) -> bytes:
        delta = {"stop_reason": self._finish(), "stop_sequence": None}
        counted = {} if tokens is None else {"usage": {"output_tokens": tokens}}
        return self._stop() + self._event("message_delta", delta=delta, **counted)

    def done(self) -> bytes:
        return self._event("message_stop")

    def failure(self) -> bytes:
        return self._event("error", error={"type": "overloaded_error", "message": "scripted"})

    def whole(self, pieces: Sequence[str], tokens: int, *, finished: bool) -> dict[str, Any]:
        text, content = "".join(pieces), []
        if self.kind == "think":
            content.append({"type": "thinking", "thinking": self.thought(), "signature": "c2lnbmVk"})
        if self.kind == "tool":
            content.append({"type": "tool_use", "id": "toolu_0", "name": tool_name(self.body), "input": _object(text)})
        else:
            content.append({"type": "text", "text": text})
        made = self._object(content, self._finish() if finished else None)
        return made | {"usage": {"input_tokens": PROMPT_TOKENS, "output_tokens": tokens}}

    def refusal(self, status: int, message: str, code: str) -> dict[str, Any]:
        words = {
            "content_filter": "Output blocked by content filtering policy",
            "context_length_exceeded": "prompt is too long: 9 tokens > 8 maximum",
            "prefill": "This model does not support assistant message prefill.",
        }
        kind = {429: "rate_limit_error", 400: "invalid_request_error"}.get(status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": words.get(code, message)}}

    def _finish(self) -> str:
        return "tool_use" if self.kind == "tool" else "end_turn"

    def _object(self, content: list[dict[str, Any]], finish: str | None) -> dict[str, Any]:
        head = {"id": "msg_1", "type": "message", "role": "assistant", "model": self.model}
        return head | {"content": content, "stop_reason": finish, "stop_sequence": None}

    def _start(self, block: dict[str, Any]) -> bytes:
        return self._event("content_block_start", index=self._block, content_block=block)

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return self._event("content_block_delta", index=self._block, delta=delta)

    def _stop(self) -> bytes:
        self._block += 1
        return self._event("content_block_stop", index=self._block - 1)

    def _event(self, kind: str, **fields: Any) -> bytes:
        return event({"type": kind, **fields}, kind)


class Gemini(Speaker):
    """`generateContent`; a call to a tool comes in one piece, when all of it is there."""

    def __init__(self, model: str, body: dict[str, Any], script: Script) -> None:
        super().__init__(model, body, script)
        self.many = body.get("generationConfig", {}).get("candidateCount") or 1
        self._calls = [""] * self.many

    def start(self) -> bytes:
        if self.kind != "think":
            return b""
        return b"".join(_crlf(self._chunk([{"text": self.thought(), "thought": True}], i)) for i in range(self.many))

    def piece(self, text: str, index: int) -> bytes:
        if self.kind == "tool":
            self._calls[index] += text
            return b""
        return _crlf(self._chunk([{"text": text}], index))

    def close(self, tokens: int | None) -> bytes:
        made = b""
        for i, text in enumerate(self._calls):
            parts = [self._call(text)] if self.kind == "tool" else []
            counted = {} if tokens is None else {"usageMetadata": self._usage(tokens)}
            made += _crlf(self._chunk(parts, i, "STOP") | counted)
        return made

    def failure(self) -> bytes:
        return _crlf(self.refusal(503, "scripted", ""))

    def whole(self, pieces: Sequence[str], tokens: int, *, finished: bool) -> dict[str, Any]:
        text = "".join(pieces)
        parts: list[dict[str, Any]] = [self._call(text) if self.kind == "tool" else {"text": text}]
        if self.kind == "think":
            parts.insert(0, {"text": self.thought(), "thought": True})
        finish = "STOP" if finished else None
        candidates = [self._chunk(parts, i, finish)["candidates"][0] for i in range(self.many)]
        return self._chunk(parts, 0) | {"candidates": candidates, "usageMetadata": self._usage(tokens)}

    def refusal(self, status: int, message: str, code: str) -> dict[str, Any]:
        words = {
            "context_length_exceeded": "The input token count (9) exceeds the maximum number of tokens allowed (8).",
            "prefill": "Ending with a model turn is not supported.",
        }
        kind = {400: "INVALID_ARGUMENT", 429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE"}.get(status, "INTERNAL")
        return {"error": {"code": status, "message": words.get(code, message), "status": kind}}

    def blocked(self) -> dict[str, Any]:
        """How a content filter answers here: with a good status."""
        counted = {"promptTokenCount": PROMPT_TOKENS, "totalTokenCount": PROMPT_TOKENS}
        return {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": counted}

    def _call(self, text: str) -> dict[str, Any]:
        return {"functionCall": {"name": tool_name(self.body), "args": _object(text)}, "thoughtSignature": "c2lnbmVk"}

    def _chunk(self, parts: list[dict[str, Any]], index: int, finish: str | None = None) -> dict[str, Any]:
        candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": index}
        if finish:
            candidate["finishReason"] = finish
        return {"candidates": [candidate], "modelVersion": self.model, "responseId": "resp-1"}

    def _usage(self, tokens: int) -> dict[str, int]:
        total = PROMPT_TOKENS + tokens
        return {"promptTokenCount": PROMPT_TOKENS, "candidatesTokenCount": tokens, "totalTokenCount": total}


def _crlf(payload: dict[str, Any]) -> bytes:
    """This API ends its lines the other way."""
    return event(payload).replace(b"\n", b"\r\n")


def _object(text: str) -> Any:
    """Calls that were cut short by a script have no input that could be read."""
    try:
        return json.loads(text)
    except ValueError:
        return {}
