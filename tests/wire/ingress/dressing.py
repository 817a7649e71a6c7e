"""Answers in the OpenAI dialect to dress, and a reader of what comes out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from lumen.wire.ingress.dress import Dress

USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 5,
    "total_tokens": 17,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 2},
}


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, **more}
    return msgspec.json.encode({"id": "chatcmpl-1", "created": 7, "model": "m-1", "choices": [choice]})


def counted(usage: dict[str, Any] = USAGE) -> bytes:
    return msgspec.json.encode({"id": "chatcmpl-1", "created": 7, "model": "m-1", "choices": [], "usage": usage})


def whole(message: dict[str, Any], finish: str = "stop", **more: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish, **more}
    body = {"id": "chatcmpl-1", "created": 7, "model": "m-1", "choices": [choice], "usage": USAGE}
    return msgspec.json.encode(body)


def call(index: int, id: str | None = None, name: str | None = None, arguments: str = "") -> dict[str, Any]:
    made: dict[str, Any] = {"index": index, "function": {"arguments": arguments}}
    if id:
        made |= {"id": id, "type": "function"}
        made["function"]["name"] = name
    return {"tool_calls": [made]}


def dressed(dress: Dress, chunks: Iterable[bytes]) -> list[dict[str, Any]]:
    """Every event that the client gets, its name checked against its payload."""
    dress.begin("req_0a")
    return events(b"".join([*(dress.chunk(data) for data in chunks), dress.end()]))


def events(frames: bytes) -> list[dict[str, Any]]:
    found = []
    for block in frames.decode().removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        event = msgspec.json.decode(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        found.append(event)
    return found
