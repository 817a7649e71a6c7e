"""An answer cut in two, for the tests of seams: the real decoder reads what both targets send."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from lumen.core.resume import Rung
from lumen.core.trace import Trace
from lumen.providers.base import Capabilities, module
from lumen.wire.call import Call, Event, chat_call
from lumen.wire.parse import parse_chat
from lumen.wire.splice import Seam


def call(**fields: Any) -> Call:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True, **fields}
    return chat_call(parse_chat(json.dumps(body).encode()))


def choice(delta: dict[str, Any], finish: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    return {"index": index, "delta": delta, "finish_reason": finish, **more}


def chunk(*choices: dict[str, Any], id: str = "b", **more: Any) -> bytes:
    body = {"id": id, "created": 2, "object": "chat.completion.chunk", "choices": choices, **more}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def answer(
    pieces: Iterable[str], id: str = "b", finish: str | None = "stop", usage: tuple[int, int] | None = None
) -> bytes:
    """A stream as a target sends it: role, pieces, finish, usage, `[DONE]`."""
    sent = chunk(choice({"role": "assistant", "content": ""}), id=id)
    sent += b"".join(chunk(choice({"content": piece}), id=id) for piece in pieces)
    if finish:
        sent += chunk(choice({}, finish), id=id)
    if usage:
        told = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
        sent += chunk(id=id, usage=told)
    return sent + (b"data: [DONE]\n\n" if finish else b"")


def read(data: bytes, **fields: Any) -> list[Event]:
    asked = call(stream_options={"include_usage": True}, **fields)
    decoder = module("openai").make(Capabilities()).decoder(asked, "text/event-stream", None)
    return decoder.feed(data)


def note(trace: Trace, events: Iterable[Event]) -> Trace:
    for e in events:
        trace.add(e.content, e.finished, e.token_ids, e.identity, e.text, e.actionable, e.reasoning, e.data)
    return trace


def broken(data: bytes, *, answers: int = 1, **fields: Any) -> Trace:
    """The trace of a client that got this and no more."""
    return note(Trace(answers, replayable=True), read(data, **fields))


def payloads(events: Iterable[Event]) -> list[dict[str, Any]]:
    return [json.loads(e.data) for e in events if e.data]


def go_on(rung: Rung, trace: Trace, data: bytes, *, echoes: bool = False, **fields: Any) -> list[Event]:
    """The client's events, fed one at a time; the trace grows with them."""
    seam = Seam(rung, trace, echoes=echoes)
    found: list[Event] = []
    for event in read(data, **fields):
        given = seam.feed([event])
        note(trace, given)
        found += given
    return found


def resumed(rung: Rung, before: str, pieces: Iterable[str], *, echoes: bool = False) -> str:
    """The text a client has in the end, and the checks that hold for every splice."""
    trace = broken(answer([before], id="a", finish=None))
    events = go_on(rung, trace, answer(pieces, usage=(9, 5)), echoes=echoes)
    told = payloads(events)
    assert {body["id"] for body in told} == {"a"}
    assert not any("role" in c["delta"] for body in told for c in body["choices"])
    assert [e.finished for e in events if e.finished] == [(0,)]
    assert [e.usage.completion_tokens for e in events if e.usage] == [5]
    said = "".join(c["delta"].get("content") or "" for body in told for c in body["choices"])
    assert before + said == trace.text
    return trace.text
