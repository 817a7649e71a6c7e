"""Every dialect file found in lumen/providers is tested on arrival; each brings a recorded stream of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lumen.providers
from lumen.core.errors import BrokenError, MalformedError, RefusedError, Retry, UpstreamError
from lumen.providers.base import Capabilities, Decoder, Dialect, Resume, module
from lumen.wire.call import Call, Event, chat_call
from lumen.wire.parse import parse_chat

FOLDER = Path(lumen.providers.__file__).parent
NAMES = sorted(p.stem for p in FOLDER.glob("*.py") if p.stem != "base" and not p.stem.startswith("_"))


def dialect(name: str, *, token_ids: bool, local: bool) -> Dialect:
    return module(name).make(Capabilities(token_ids=token_ids, local=local))


def call(**fields: Any) -> Call:
    body = {"model": "route", "messages": [{"role": "user", "content": "hi"}], "stream": True, **fields}
    return chat_call(parse_chat(json.dumps(body).encode()))


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, **more}
    return b"data: " + json.dumps({"id": "x", "created": 5, "choices": [choice]}).encode() + b"\n\n"


USAGE = b'data: {"id":"x","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}\n\n'
TOOL = {"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}]}


def told(*payloads: dict[str, Any]) -> bytes:
    """An event stream of these payloads, each named by its type where it has one."""
    made = b""
    for payload in payloads:
        if "type" in payload:
            made += b"event: " + payload["type"].encode() + b"\n"
        made += b"data: " + json.dumps(payload, ensure_ascii=False).encode() + b"\n\n"
    return made


def gemini(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    candidate = {"content": {"parts": list(parts), "role": "model"}, "index": 0, **more}
    counts = {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5}
    return {"candidates": [candidate], "usageMetadata": counts, "modelVersion": "m", "responseId": "x"}


# Every one says "hé", calls the tool "f" with {"a":1}, and counts 3 + 2 tokens.
STREAMS = {
    "openai": chunk({"role": "assistant", "content": ""})
    + b": comment\n\n"
    + chunk({"content": "h\u00e9"})
    + chunk(TOOL)
    + chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"a":1}'}}]})
    + chunk({}, "tool_calls")
    + USAGE
    + b"data: [DONE]\n\n",
    "vllm": chunk({"role": "assistant", "content": ""})
    + chunk({"content": "h"}, token_ids=[7])
    + chunk({"content": ""}, token_ids=[8])
    + chunk({"content": "\u00e9"}, token_ids=[9])
    + chunk(TOOL)
    + chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"a":1}'}}]})
    + chunk({}, "tool_calls", stop_reason=None, token_ids=[2])
    + USAGE
    + b"data: [DONE]\n\n",
    "anthropic": told(
        {"type": "message_start", "message": {"id": "x", "model": "m", "usage": {"input_tokens": 3}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "h\u00e9"}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "content_block_start",
            "index": 1,
            "content_block": {"type": "tool_use", "id": "c1", "name": "f", "input": {}},
        },
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": ""}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"a"'}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": ":1}"}},
        {"type": "content_block_stop", "index": 1},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 2}},
        {"type": "message_stop"},
    ),
    "gemini": told(
        gemini({"text": "h\u00e9"}),
        gemini({"functionCall": {"id": "c1", "name": "f", "args": {"a": 1}}}),
        gemini(finishReason="STOP"),
    ).replace(b"\n", b"\r\n"),
}


def events(decoder: Decoder, pieces: list[bytes]) -> list[Event]:
    return [e for piece in pieces for e in decoder.feed(piece)] + decoder.finish()


@dataclass
class Folded:
    """What a client makes of a stream."""

    roles: list[str]
    text: str
    tools: list[dict[str, Any]]
    finishes: list[str]


def fold(found: list[Event]) -> Folded:
    roles: list[str] = []
    text = ""
    tools: list[dict[str, Any]] = []
    finishes: list[str] = []
    for event in found:
        for choice in json.loads(event.data)["choices"] if event.data else ():
            delta = choice["delta"]
            roles += [delta["role"]] if "role" in delta else []
            text += delta.get("content") or ""
            for part in delta.get("tool_calls") or ():
                if "id" in part:
                    tools.append({"id": part["id"], "name": part["function"]["name"], "arguments": ""})
                tools[part["index"]]["arguments"] += part["function"].get("arguments", "")
            finishes += [choice["finish_reason"]] if choice["finish_reason"] else []
    return Folded(roles, text, tools, finishes)


def stream(made: Dialect, asked: Call, resume: Resume | None = None) -> Decoder:
    return made.decoder(asked, "text/event-stream; charset=utf-8", resume)


def test_every_dialect_has_a_recorded_stream() -> None:
    assert set(NAMES) == set(STREAMS)


def test_unknown_dialect() -> None:
    with pytest.raises(LookupError, match="no provider dialect named 'nope'"):
        dialect("nope", token_ids=False, local=False)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "cut", [lambda b: [b], lambda b: [b[i : i + 1] for i in range(len(b))]], ids=["whole", "bytes"]
)
def test_a_stream_reads_the_same_however_it_is_cut(name: str, cut: Callable[[bytes], list[bytes]]) -> None:
    decoder = stream(dialect(name, token_ids=False, local=False), call())
    found = events(decoder, cut(STREAMS[name]))
    assert "".join(e.text for e in found if e.text) == "h\u00e9"
    assert all(e.content for e in found if e.text or e.actionable) and any(e.actionable for e in found)
    assert next(e.identity for e in found if e.identity)[0] == "x"
    assert fold(found) == Folded(
        ["assistant"], "h\u00e9", [{"id": "c1", "name": "f", "arguments": '{"a":1}'}], ["tool_calls"]
    )
    assert [e.finished for e in found if e.finished] == [(0,)]
    assert [e.usage.total_tokens for e in found if e.usage] == [5]
    assert decoder.done
    assert all(json.loads(e.data) for e in found if e.data)


@pytest.mark.parametrize("name", NAMES)
@given(cuts=st.lists(st.integers(0, 2000), max_size=6))
def test_any_cut(name: str, cuts: list[int]) -> None:
    data = STREAMS[name]
    marks = [0, *sorted(min(c, len(data)) for c in cuts), len(data)]
    made = dialect(name, token_ids=False, local=False)
    # An identity of its own, so that none is minted.
    resume = Resume([], ("x", 5))
    whole = events(stream(made, call(), resume), [data])
    pieces = [data[a:b] for a, b in pairwise(marks)]
    assert events(stream(made, call(), resume), pieces) == whole


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_without_finish_is_broken(name: str) -> None:
    made = dialect(name, token_ids=False, local=False)
    for end in range(0, len(STREAMS[name]) - 1, 7):
        decoder = stream(made, call())
        found = decoder.feed(STREAMS[name][:end])
        try:
            # Only the blank line behind the last event may be missing.
            found += decoder.finish()
        except (BrokenError, MalformedError):
            continue
        assert any(e.finished for e in found)


@pytest.mark.parametrize("name", NAMES)
def test_refusals_say_what_may_be_tried_next(name: str) -> None:
    made = dialect(name, token_ids=False, local=False)
    table = {
        400: (400, Retry.NEVER),
        401: (502, Retry.OTHER),
        403: (502, Retry.OTHER),
        404: (404, Retry.NEVER),
        429: (429, Retry.OTHER),
        500: (502, Retry.SAME),
        503: (503, Retry.SAME),
        529: (502, Retry.SAME),
        302: (502, Retry.OTHER),
    }
    for status, (told, retry) in table.items():
        for body in (b"", b"<html>", b'{"error": {"message": "m", "code": "c"}}', b'{"error": "m"}', b"[1]", b"\xff"):
            error = made.refusal(status, {"retry-after": "7"}, body)
            assert isinstance(error, UpstreamError)
            assert (error.status, error.retry) == (told, retry), status
    assert made.refusal(429, {"retry-after": "7"}, b"").retry_after == 7
    assert made.refusal(429, {"retry-after": "soon"}, b"").retry_after is None


COUNTS = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


@pytest.mark.parametrize(
    "parts",
    [
        # With the finish reason, as Mistral tells them; then once more, as others do.
        [({"content": "a"}, {}), ({}, {"usage": COUNTS})],
        [({"content": "a"}, {}), ({}, {"usage": COUNTS}), None],
        # So far, in every chunk, as Perplexity does; the last of them not with the finish reason.
        [({"content": "a"}, {"usage": {**COUNTS, "completion_tokens": 1}}), ({}, {"usage": COUNTS})],
        [({"content": "a"}, {"usage": COUNTS}), ({}, {})],
    ],
)
@pytest.mark.parametrize("ending", [b"data: [DONE]\n\n", b""])
@pytest.mark.parametrize("asked", [True, False])
def test_openai_counts_beside_text_come_in_a_chunk_of_their_own(
    parts: list[tuple[dict[str, Any], dict[str, Any]] | None], ending: bytes, asked: bool
) -> None:
    said = b""
    for part in parts:
        if part is None:
            said += USAGE
            continue
        delta, more = part
        choice = {"index": 0, "delta": delta, "finish_reason": None if delta else "stop"}
        said += b"data: " + json.dumps({"id": "x", "choices": [choice], **more}).encode() + b"\n\n"
    wanted = {"stream_options": {"include_usage": True}} if asked else {}
    made = events(stream(dialect("openai", token_ids=False, local=False), call(**wanted)), [said + ending])
    assert [e.usage.total_tokens for e in made if e.usage][-1] == 5, "metered in any case"
    shown = [json.loads(e.data) for e in made if e.data]
    if asked:
        assert [(one["choices"], one["usage"]) for one in shown if one.get("usage")] == [([], COUNTS)]
        assert shown[-1]["choices"] == [] and shown[-1]["id"] == "x"
    else:
        assert all(one["choices"] for one in shown)
    assert [f for e in made for f in e.finished] == [0]


@pytest.mark.parametrize("name", NAMES)
def test_usage_reaches_only_who_asked(name: str) -> None:
    made = dialect(name, token_ids=False, local=False)
    for asked, shown in ((call(), 0), (call(stream_options={"include_usage": True}), 1)):
        found = events(stream(made, asked), [STREAMS[name]])
        assert [e.usage.prompt_tokens for e in found if e.usage] == [3]
        assert len([e for e in found if b'"usage":{' in e.data.replace(b" ", b"")]) == shown


@pytest.mark.parametrize("name", NAMES)
def test_what_came_before_an_error_is_delivered_first(name: str) -> None:
    reported = {"type": "error", "error": {"message": "overloaded", "type": "t", "code": "c", "status": "s"}}
    data = STREAMS[name].replace(b"\r\n", b"\n")
    first = data[: data.index(b"\n\n") + 2]
    decoder = stream(dialect(name, token_ids=False, local=False), call())
    assert fold(decoder.feed(first + told(reported))).roles == ["assistant"]
    with pytest.raises(RefusedError, match="overloaded"):
        decoder.feed(b"")
    with pytest.raises(RefusedError, match="overloaded"):
        decoder.finish()


@pytest.mark.parametrize("name", NAMES)
def test_endless_events_and_other_kinds_are_refused(name: str) -> None:
    made = dialect(name, token_ids=False, local=False)
    decoder = stream(made, call())
    with pytest.raises(MalformedError):
        for _ in range(20):
            decoder.feed(b"data: " + b"x" * 1024 * 1024)
    with pytest.raises(MalformedError):
        stream(made, call()).feed(b"data: {not json}\n\n")
    for asked, kind in ((call(), "text/html"), (call(stream=False), "text/html"), (call(), "")):
        with pytest.raises(MalformedError):
            made.decoder(asked, kind, None)


def test_openai_forwards_the_upstreams_own_bytes() -> None:
    payload = b'{"id":"x", "object":"o","choices":[ {"index":0,"delta":{"content":"a"},"new_field":1}]}'
    (event,) = stream(dialect("openai", token_ids=False, local=False), call()).feed(b"data: " + payload + b"\n\n")
    assert event.data == payload


def test_openai_hides_token_ids_the_client_did_not_ask_for() -> None:
    made = dialect("openai", token_ids=True, local=True)
    data = chunk({"content": "a"}, token_ids=[5, 6])
    (event,) = stream(made, call()).feed(data)
    assert event.token_ids == [5, 6] and b"token_ids" not in event.data
    assert event.identity == ("x", 5)
    (event,) = stream(made, call(return_token_ids=True)).feed(data)
    assert b"token_ids" in event.data


def test_openai_goes_on_under_the_first_identity() -> None:
    made = dialect("openai", token_ids=True, local=True)
    resume = Resume([1, 2], ("first", 1))
    (event,) = stream(made, call(), resume).feed(chunk({"content": "a"}, token_ids=[3]))
    told = json.loads(event.data)
    assert (told["id"], told["created"]) == ("first", 1)
    sent = json.loads(made.encode(call(), "m", resume).body)
    assert sent["resume_token_ids"] == [1, 2] and sent["return_token_ids"] is True


def test_openai_extensions_go_to_those_who_take_them_and_are_refused_elsewhere() -> None:
    asked = call(top_k=3, min_p=0.1, repeat_penalty=1.1)
    remote, local = dialect("openai", token_ids=False, local=False), dialect("openai", token_ids=True, local=True)
    with pytest.raises(UpstreamError, match="top_k"):
        remote.encode(asked, "m", None)
    lent = msgspec.structs.replace(asked, lent=("top_k", "min_p", "repeat_penalty"))
    neutral = call(top_k=-1, min_p=0, repeat_penalty=1, resume_exact=True)
    for one in (lent, neutral):
        body = json.loads(remote.encode(one, "m", None).body)
        assert set(body) == {"model", "messages", "stream", "stream_options"}
    assert {"top_k", "min_p", "repeat_penalty", "return_token_ids"} <= set(
        json.loads(local.encode(asked, "m", None).body)
    )
    vendor = module("openai").make(Capabilities(samplers=True))
    body = json.loads(vendor.encode(asked, "m", None).body)
    assert (body["top_k"], body["min_p"], body["repeat_penalty"]) == (3, 0.1, 1.1)


def test_openai_is_not_asked_for_more_answers_than_it_gives() -> None:
    made = module("openai").make(Capabilities(n=False))
    with pytest.raises(UpstreamError, match="'n'"):
        made.encode(call(n=2), "m", None)
    assert "n" in json.loads(module("openai").make(Capabilities()).encode(call(n=2), "m", None).body)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"{}", b'{"choices":[]}', b'{"choices":[{"index":0}]}', b'{"error":{"message":"m"}}', b"\xff",
     b"[" * 100_000],
)  # fmt: skip
def test_whole_answers_that_are_none(name: str, body: bytes) -> None:
    decoder = dialect(name, token_ids=False, local=False).decoder(call(stream=False), "application/json", None)
    decoder.feed(body)
    with pytest.raises(UpstreamError):
        decoder.finish()


@pytest.mark.parametrize("given_as", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_openai_writes_the_limit_in_the_field_the_target_knows(given_as: str, field: Any) -> None:
    made = module("openai").make(Capabilities(max_tokens_field=field))
    sent = json.loads(made.encode(call(**{given_as: 7}), "m", None).body)
    assert {name: sent[name] for name in ("max_tokens", "max_completion_tokens") if name in sent} == {field: 7}
