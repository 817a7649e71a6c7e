"""Requests as clients write them, on their way to a dialect and back."""

from __future__ import annotations

import json
from typing import Any

from lumen.core.errors import RefusedError
from lumen.providers.base import Capabilities, Resume, module
from lumen.wire.call import Call, Event, chat_call
from lumen.wire.parse import parse_chat

# A resume of its own keeps an answer's identity from being minted.
KNOWN = Resume([], ("chatcmpl-x", 5))


def call(**fields: Any) -> Call:
    body = {"model": "route", "messages": [{"role": "user", "content": "hi"}], **fields}
    return chat_call(parse_chat(json.dumps(body).encode()))


def encoded(dialect: str, model: str = "m", can: Capabilities | None = None, **fields: Any) -> dict[str, Any]:
    """The body a chat request becomes."""
    made = module(dialect).make(can or Capabilities()).encode(call(**fields), model, None)
    found: dict[str, Any] = json.loads(made.body)
    return found


def refused(dialect: str, model: str = "m", can: Capabilities | None = None, **fields: Any) -> str | None:
    """The parameter a dialect says it cannot take."""
    try:
        encoded(dialect, model, can, **fields)
    except RefusedError as error:
        assert (error.code, error.status, error.phase) == ("unsupported_by_target", 400, "encode")
        assert error.message.startswith("This target cannot serve ")
        return error.param
    raise AssertionError("it was taken")


def told(*payloads: dict[str, Any]) -> bytes:
    """An event stream of these payloads."""
    return b"".join(b"data: " + json.dumps(p, ensure_ascii=False).encode() + b"\n\n" for p in payloads)


def streamed(dialect: str, data: bytes, *, step: int = 0, resume: Resume | None = None, **fields: Any) -> list[Event]:
    """The events of a stream, fed in pieces of `step` bytes."""
    decoder = module(dialect).make(Capabilities()).decoder(call(stream=True, **fields), "text/event-stream", resume)
    step = step or len(data)
    found = [e for i in range(0, len(data), step) for e in decoder.feed(data[i : i + step])]
    return found + decoder.finish()


def whole(dialect: str, answer: Any, **fields: Any) -> tuple[dict[str, Any], Event]:
    """A whole answer as the client gets it, and its event."""
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    decoder = module(dialect).make(Capabilities()).decoder(call(**fields), "application/json", KNOWN)
    for i in range(0, len(body), 7):
        assert decoder.feed(body[i : i + 7]) == []
    (event,) = decoder.finish()
    return json.loads(event.data), event


def deltas(events: list[Event]) -> list[tuple[int, dict[str, Any], str | None]]:
    """Index, delta and finish reason of every chunk, in order."""
    chunks = [json.loads(event.data) for event in events if event.data]
    return [(c["index"], c["delta"], c["finish_reason"]) for chunk in chunks for c in chunk["choices"]]


def tool(name: str = "f", **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **more}}


def calling(id: str, name: str, arguments: str, **more: Any) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}, **more}
