"""PURE: events → OpenAI answers, streamed (one chunk an event) or whole."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass, field
from typing import Any

import msgspec

from lumen.workers.llamacpp.chat.output import Delta, ToolDelta
from lumen.workers.llamacpp.model import Vocab
from lumen.workers.llamacpp.sampling import TokenLogprob
from lumen.workers.llamacpp.sequence import Event

_encode = msgspec.json.Encoder().encode

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Head:
    """What every chunk of an answer repeats, and what was asked for."""

    id: str
    created: int
    model: str
    chat: bool
    include_usage: bool
    token_ids: bool
    resumed: bool
    prompts: list[list[int]]


@dataclass(slots=True)
class Usage:
    """Token counts of a whole answer, gathered from its events."""

    prompt: int
    completion: int = 0
    cached: int = 0
    accepted: int = 0

    def add(self, event: Event, per_prompt: int) -> None:
        """Count a choice's last event; choices of one prompt share it, so only the first tells what was
        cached.
        """
        self.completion += event.completion
        self.accepted += event.accepted
        if event.choice % per_prompt == 0:
            self.cached += event.cached

    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }
        if self.accepted:
            body["completion_tokens_details"] = {"accepted_prediction_tokens": self.accepted}
        return body


@dataclass(slots=True)
class Parts:
    """Deltas merged: content, reasoning, and tool calls by index."""

    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: dict[int, ToolDelta] = field(default_factory=dict)  # without their arguments
    arguments: dict[int, list[str]] = field(default_factory=dict)

    @property
    def tools(self) -> list[ToolDelta]:
        return [
            ToolDelta(i, call.id, call.name, "".join(self.arguments[i]) if i in self.arguments else None)
            for i, call in self.calls.items()
        ]

    def add(self, deltas: Many[Delta]) -> None:
        for delta in deltas:
            if delta.content is not None:
                self.content.append(delta.content)
            if delta.reasoning is not None:
                self.reasoning.append(delta.reasoning)
            if delta.tool is not None:
                self._tool(delta.tool)

    def _tool(self, new: ToolDelta) -> None:
        if new.arguments is not None:
            self.arguments.setdefault(new.index, []).append(new.arguments)
        old = self.calls.get(new.index)
        if old is None or new.id is not None or new.name is not None:
            self.calls[new.index] = new if old is None else ToolDelta(new.index, old.id or new.id, old.name or new.name)


class Stream:
    """Server-sent events of one answer. Each method returns whole events, ready to write."""

    def __init__(self, head: Head, vocab: Vocab) -> None:
        self._head = head
        self._vocab = vocab
        kind = "chat.completion.chunk" if head.chat else "text_completion"
        fixed = {"id": head.id, "object": kind, "created": head.created, "model": head.model}
        self._open = b"data: " + _encode(fixed)[:-1]
        self._usage = b',"usage":null' if head.include_usage else b""
        self._first = b',"prompt_token_ids":' + _encode(_flat(head.prompts)) if head.token_ids else b""
        self._offsets: dict[int, int] = {}
        # The commonest chunk by far is a piece of content and nothing else: its frame is made once.
        text = b',"delta":{"content":' if head.chat else b',"text":'
        self._frames = [self._open + b',"choices":[{"index":%d' % i + text for i in range(16)]
        self._tail = (b"}" if head.chat else b"") + b',"logprobs":null,"finish_reason":null'
        self._close = b"}]" + self._usage + b"}\n\n"

    def chunks(self, event: Event) -> list[bytes]:
        """The server-sent events for one engine event (none for the start of a plain completion)."""
        if event.started:
            return self._role(event.choice)
        piece = self.piece(event) if not self._first else None
        return self._slow(event) if piece is None else [piece]

    def piece(self, event: Event) -> bytes | None:
        """The server-sent event of a piece of content and nothing else, any but the first; None for all others.

        On any thread.
        """
        deltas = event.deltas
        if event.finish is not None or event.logprobs or len(deltas) != 1 or event.choice >= 16:
            return None
        text = deltas[0].content
        if text is None:
            return None
        ids = b',"token_ids":' + _encode(event.tokens) if self._head.token_ids else b""
        return self._frames[event.choice] + _encode(text) + self._tail + ids + self._close

    def _role(self, choice: int) -> list[bytes]:
        if not self._head.chat or self._head.resumed:
            return []
        return [self._chunk({"index": choice, "delta": {"role": "assistant", "content": ""}}, None)]

    def _slow(self, event: Event) -> list[bytes]:
        out = []
        tokens, logprobs = event.tokens, event.logprobs
        if event.tail:
            return [self._chunk(self._body(event.choice, event.deltas), event.finish, tokens, logprobs)]
        if event.deltas or (event.finish is None and tokens):
            out.append(self._chunk(self._body(event.choice, event.deltas), None, tokens, logprobs))
            tokens, logprobs = [], []
        if event.finish is not None:
            out.append(self._chunk(self._body(event.choice, []), event.finish, tokens, logprobs))
        return out

    def _body(self, choice: int, deltas: Many[Delta]) -> dict[str, Any]:
        parts = Parts()
        parts.add(deltas)
        if not self._head.chat:
            return {"index": choice, "text": "".join(parts.content)}
        delta: dict[str, Any] = {}
        if parts.content:
            delta["content"] = "".join(parts.content)
        if parts.reasoning:
            delta["reasoning_content"] = "".join(parts.reasoning)
        if parts.calls:
            delta["tool_calls"] = [_tool_chunk(tool) for tool in parts.tools]
        return {"index": choice, "delta": delta}

    def _chunk(
        self,
        choice: dict[str, Any],
        finish: str | None,
        tokens: Many[int] = (),
        logprobs: Many[TokenLogprob] = (),
    ) -> bytes:
        choice["logprobs"] = self._logprobs(choice["index"], logprobs) if logprobs else None
        choice["finish_reason"] = finish
        if self._head.token_ids:
            choice["token_ids"] = list(tokens)
        first, self._first = self._first, b""
        return self._open + first + b',"choices":[' + _encode(choice) + b"]" + self._usage + b"}\n\n"

    def _logprobs(self, choice: int, logprobs: Many[TokenLogprob]) -> dict[str, Any]:
        if self._head.chat:
            return chat_logprobs(logprobs, self._vocab)
        body, self._offsets[choice] = plain_logprobs(logprobs, self._vocab, self._offsets.get(choice, 0))
        return body

    def end(self, usage: Usage) -> list[bytes]:
        """What follows the last event of the last choice."""
        if not self._head.include_usage:
            return [DONE]
        return [self._open + b',"choices":[],"usage":' + _encode(usage.body()) + b"}\n\n", DONE]

    @staticmethod
    def error(body: bytes) -> bytes:
        """An error inside the stream; the connection ends after it, without [DONE]."""
        return b"data: " + body + b"\n\n"


class Whole:
    """Folds the events of one answer into its JSON body."""

    def __init__(self, head: Head, vocab: Vocab, choices: int) -> None:
        self._head = head
        self._vocab = vocab
        self._parts = [Parts() for _ in range(choices)]
        self._tokens: list[list[int]] = [[] for _ in range(choices)]
        self._logprobs: list[list[TokenLogprob]] = [[] for _ in range(choices)]
        self._finish: list[str | None] = [None] * choices

    def add(self, event: Event) -> None:
        self._parts[event.choice].add(event.deltas)
        self._tokens[event.choice] += event.tokens
        self._logprobs[event.choice] += event.logprobs
        if event.finish is not None:
            self._finish[event.choice] = event.finish

    def body(self, usage: Usage) -> bytes:
        """The whole answer; every choice must have had its last event."""
        head = self._head
        body: dict[str, Any] = {
            "id": head.id,
            "object": "chat.completion" if head.chat else "text_completion",
            "created": head.created,
            "model": head.model,
            "choices": [self._choice(i) for i in range(len(self._parts))],
            "usage": usage.body(),
        }
        if head.token_ids:
            body["prompt_token_ids"] = _flat(head.prompts)
        return _encode(body)

    def _choice(self, i: int) -> dict[str, Any]:
        parts, logprobs = self._parts[i], self._logprobs[i]
        choice: dict[str, Any] = {"index": i}
        if self._head.chat:
            choice["message"] = _message(parts)
            choice["logprobs"] = chat_logprobs(logprobs, self._vocab) if logprobs else None
        else:
            choice["text"] = "".join(parts.content)
            choice["logprobs"] = plain_logprobs(logprobs, self._vocab, 0)[0] if logprobs else None
        choice["finish_reason"] = self._finish[i]
        if self._head.token_ids:
            choice["token_ids"] = self._tokens[i]
        return choice


def _message(parts: Parts) -> dict[str, Any]:
    text = "".join(parts.content)
    message: dict[str, Any] = {"role": "assistant", "content": None if parts.calls and not text else text}
    message["refusal"] = None
    if parts.reasoning:
        message["reasoning_content"] = "".join(parts.reasoning)
    if parts.calls:
        message["tool_calls"] = [
            {"id": tool.id, "type": "function", "function": {"name": tool.name, "arguments": tool.arguments or ""}}
            for tool in parts.tools
        ]
    return message


def _tool_chunk(tool: ToolDelta) -> dict[str, Any]:
    """`index` always; id, type and name once; then fragments of the arguments."""
    function: dict[str, Any] = {}
    chunk: dict[str, Any] = {"index": tool.index}
    if tool.id is not None:
        chunk["id"] = tool.id
        chunk["type"] = "function"
    if tool.name is not None:
        function["name"] = tool.name
    if tool.arguments is not None:
        function["arguments"] = tool.arguments
    chunk["function"] = function
    return chunk


def _flat(prompts: list[list[int]]) -> list[int] | list[list[int]]:
    return prompts[0] if len(prompts) == 1 else prompts


def chat_logprobs(logprobs: Many[TokenLogprob], vocab: Vocab) -> dict[str, Any]:
    """OpenAI's chat form: {"content": [{token, logprob, bytes, top_logprobs}]}."""
    content = []
    for entry in logprobs:
        one = _token_entry(entry.token, entry.logprob, vocab)
        one["top_logprobs"] = [_token_entry(token, value, vocab) for token, value in entry.top]
        content.append(one)
    return {"content": content, "refusal": None}


def _token_entry(token: int, logprob: float, vocab: Vocab) -> dict[str, Any]:
    piece = vocab.piece(token, special=True)
    return {"token": piece.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(piece)}


def plain_logprobs(logprobs: Many[TokenLogprob], vocab: Vocab, offset: int) -> tuple[dict[str, Any], int]:
    """OpenAI's completion form, and the text offset (characters) after it."""
    body: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    for entry in logprobs:
        text = vocab.piece(entry.token, special=True).decode("utf-8", "replace")
        body["tokens"].append(text)
        body["token_logprobs"].append(entry.logprob)
        top = {vocab.piece(t, special=True).decode("utf-8", "replace"): value for t, value in reversed(entry.top)}
        body["top_logprobs"].append(top)
        body["text_offset"].append(offset)
        offset += len(text)
    return body, offset
