"""Recorded answers of the Gemini API as clients get them; every ending and every error."""

from __future__ import annotations

import json
import struct
from base64 import b64decode
from typing import Any

import pytest

from lumen.core.errors import BrokenError, MalformedError, RefusedError, Retry, UpstreamError
from lumen.providers.base import Capabilities, module
from lumen.wire.call import embedding_call
from lumen.wire.parse import parse_embedding
from tests.providers.asking import KNOWN, deltas, streamed, told, tool, whole

COUNTS = {
    "promptTokenCount": 100,
    "toolUsePromptTokenCount": 5,
    "cachedContentTokenCount": 60,
    "candidatesTokenCount": 20,
    "thoughtsTokenCount": 30,
    "totalTokenCount": 155,
}
LOCKED = "The target refused Lumen's credentials."
USAGE = {
    "prompt_tokens": 105,
    "completion_tokens": 50,
    "total_tokens": 155,
    "prompt_tokens_details": {"cached_tokens": 60},
    "completion_tokens_details": {"reasoning_tokens": 30},
}


def said(*parts: dict[str, Any], index: int = 0, finish: str | None = None, **more: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"index": index}
    if parts:
        candidate["content"] = {"parts": list(parts), "role": "model"}
    if finish:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], "modelVersion": "gemini-x", "responseId": "r1", **more}


TRANSCRIPT = told(
    said({"text": "so it is", "thought": True}, usageMetadata={"promptTokenCount": 100}),
    said({"text": "Grüße"}, {"text": " 🌍"}),
    said({"text": "", "thoughtSignature": "zz"}),
    said(
        {"functionCall": {"id": "c1", "name": "f", "args": {"a": 1}}, "thoughtSignature": "sig"},
        {"functionCall": {"name": "g"}},
    ),
    said(finish="STOP", usageMetadata=COUNTS),
).replace(b"\n", b"\r\n")


def named(number: int, id: str, name: str, arguments: str, **more: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"tool_calls": [{"index": number, "id": id, "type": "function", "function": function, **more}]}


def test_a_transcript() -> None:
    events = streamed("gemini", TRANSCRIPT, stream_options={"include_usage": True})
    signed = {"extra_content": {"google": {"thought_signature": "sig"}}}
    assert [(d, f) for _, d, f in deltas(events)] == [
        ({"role": "assistant", "content": ""}, None),
        ({"reasoning_content": "so it is"}, None),
        ({"content": "Grüße"}, None),
        ({"content": " 🌍"}, None),
        (named(0, "c1", "f", '{"a":1}', **signed), None),
        (named(1, "call_r1_0_1", "g", "{}"), None),
        ({}, "tool_calls"),
    ]
    last = json.loads(events[-1].data)
    assert (last["id"], last["model"], last["choices"], last["usage"]) == ("r1", "gemini-x", [], USAGE)


def test_a_request_for_one_call_gets_the_first() -> None:
    asked: dict[str, Any] = {"tools": [tool("f"), tool("g")], "parallel_tool_calls": False}
    called = [d["tool_calls"][0] for _, d, _ in deltas(streamed("gemini", TRANSCRIPT, **asked)) if "tool_calls" in d]
    assert [call["function"]["name"] for call in called] == ["f"]
    both = said({"functionCall": {"name": "f"}}, {"functionCall": {"name": "g"}}, finish="STOP")
    (choice,) = whole("gemini", both, **asked)[0]["choices"]
    assert [call["function"]["name"] for call in choice["message"]["tool_calls"]] == ["f"]


def test_any_cut_gives_the_same() -> None:
    expected = streamed("gemini", TRANSCRIPT, resume=KNOWN)
    for step in (1, 2, 3, 7, 64, 1000):
        assert streamed("gemini", TRANSCRIPT, step=step, resume=KNOWN) == expected


def test_counts_that_come_after_the_end() -> None:
    events = streamed("gemini", told(said({"text": "a"}, finish="STOP"), {"usageMetadata": COUNTS}))
    assert [e.usage.total_tokens for e in events if e.usage] == [155]


def test_counts_of_a_stream_that_tells_them_once_too_early() -> None:
    events = streamed("gemini", told(said({"text": "a"}, usageMetadata=COUNTS), said(finish="MAX_TOKENS")))
    assert [e.usage.total_tokens for e in events if e.usage] == [155]


def test_several_answers() -> None:
    data = told(
        said({"text": "a"}),
        said({"text": "b"}, index=1),
        said(finish="STOP"),
        said(index=1, finish="MAX_TOKENS", usageMetadata=COUNTS),
    )
    events = streamed("gemini", data, n=2)
    assert [(i, d.get("role"), f) for i, d, f in deltas(events) if "role" in d or f] == [
        (0, "assistant", None),
        (1, "assistant", None),
        (0, None, "stop"),
        (1, None, "length"),
    ]
    assert [e.text for e in events if e.content] == ["a", None]
    with pytest.raises(BrokenError):
        streamed("gemini", told(said({"text": "a"}, finish="STOP")), n=2)


@pytest.mark.parametrize(
    "reason, finish",
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("SPII", "content_filter"),
        ("BLOCKLIST", "content_filter"),
    ],
)
def test_endings(reason: str, finish: str) -> None:
    assert deltas(streamed("gemini", told(said({"text": "a"}, finish=reason))))[-1] == (0, {}, finish)
    assert whole("gemini", said(finish=reason))[0]["choices"][0]["finish_reason"] == finish


@pytest.mark.parametrize("reason", ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "OTHER", "SOMETHING_NEW"])
def test_endings_no_client_could_use_are_errors(reason: str) -> None:
    for read in (
        lambda: streamed("gemini", told(said({"text": "a"}), said(finish=reason)), step=1),
        lambda: whole("gemini", said({"text": "a"}, finish=reason)),
    ):
        with pytest.raises(RefusedError) as caught:
            read()
        assert caught.value.retry is Retry.OTHER


def test_a_blocked_prompt_is_the_content_filters_error() -> None:
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 4}}
    for read in (lambda: streamed("gemini", told(blocked)), lambda: whole("gemini", blocked)):
        with pytest.raises(RefusedError) as caught:
            read()
        error = caught.value
        assert (error.status, error.code, error.type) == (400, "content_filter", "invalid_request_error")
        assert error.retry is Retry.NEVER


def test_media_in_an_answer_is_an_error() -> None:
    picture = said({"inlineData": {"mimeType": "image/png", "data": "AA"}}, finish="STOP")
    with pytest.raises(RefusedError):
        streamed("gemini", told(picture), step=1)
    with pytest.raises(RefusedError):
        whole("gemini", picture)


def test_a_whole_answer() -> None:
    call = {"functionCall": {"id": "c1", "name": "f", "args": {"x": 1}}, "thoughtSignature": "sig"}
    answer, event = whole(
        "gemini",
        said({"text": "hm", "thought": True}, {"text": "a"}, {"text": "b"}, call, finish="STOP")
        | {"usageMetadata": COUNTS},
    )
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant",
        "content": "ab",
        "reasoning_content": "hm",
        "tool_calls": [
            {
                "id": "c1",
                "type": "function",
                "function": {"name": "f", "arguments": '{"x":1}'},
                "extra_content": {"google": {"thought_signature": "sig"}},
            }
        ],
        "refusal": None,
    }
    assert answer["usage"] == USAGE and event.finished == (0,)


def test_too_few_answers_are_none() -> None:
    with pytest.raises(MalformedError):
        whole("gemini", said({"text": "a"}, finish="STOP"), n=2)
    with pytest.raises(MalformedError):
        whole("gemini", said({"text": "a"}))


def test_every_end_before_the_last_finish_is_broken() -> None:
    data = TRANSCRIPT.replace(b"\r\n", b"\n")
    marks = [i + 2 for i in range(len(data)) if data[i : i + 2] == b"\n\n"][:-1]
    assert len(marks) == 4
    for mark in marks:
        with pytest.raises(BrokenError):
            streamed("gemini", data[:mark])


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_embeddings(encoding: str) -> None:
    body = json.dumps({"model": "route", "input": ["a", "b"], "encoding_format": encoding}).encode()
    asked = embedding_call(parse_embedding(body))
    decoder = module("gemini").make(Capabilities()).decoder(asked, "application/json", None)
    answer = {"embeddings": [{"values": [0.5, -1]}, {"values": [2, 0.25]}], "usageMetadata": {"promptTokenCount": 4}}
    decoder.feed(json.dumps(answer).encode())
    (event,) = decoder.finish()
    found = json.loads(event.data)
    vectors = [one["embedding"] for one in found["data"]]
    if encoding == "base64":
        vectors = [list(struct.unpack("<2f", b64decode(v))) for v in vectors]
    assert vectors == [[0.5, -1], [2, 0.25]]
    assert [one["index"] for one in found["data"]] == [0, 1] and found["model"] == "route"
    assert found["usage"]["prompt_tokens"] == 4 and event.usage is not None


@pytest.mark.parametrize("answer", [{}, {"embeddings": [{"values": [1]}]}, {"error": {"message": "m"}}, []])
def test_embeddings_that_are_none(answer: Any) -> None:
    asked = embedding_call(parse_embedding(b'{"model": "m", "input": ["a", "b"]}'))
    decoder = module("gemini").make(Capabilities()).decoder(asked, "application/json", None)
    decoder.feed(json.dumps(answer).encode())
    with pytest.raises(UpstreamError):
        decoder.finish()


@pytest.mark.parametrize(
    "error, code, message",
    [
        ({"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}, "UNAVAILABLE", "overloaded"),
        ({"code": 403, "message": "key x", "status": "PERMISSION_DENIED"}, "upstream_error", LOCKED),
        ("what", "upstream_error", "what"),
    ],
)
def test_errors_inside_an_answer(error: Any, code: str, message: str) -> None:
    for read in (
        lambda: streamed("gemini", told(said({"text": "a"}), {"error": error}), step=9),
        lambda: whole("gemini", {"error": error}),
    ):
        with pytest.raises(RefusedError) as caught:
            read()
        assert (caught.value.code, caught.value.message) == (code, message)


RETRY = [{"@type": "type.googleapis.com/google.rpc.Help"}, {"retryDelay": "34.5s"}]


INVALID = "INVALID_ARGUMENT"
OWN = (400, None, Retry.NEVER)
LONG = (400, "context_length_exceeded", Retry.NEVER)
ELSEWHERE = (400, "unsupported_by_target", Retry.OTHER)
HIDDEN = (502, "upstream_error", Retry.OTHER)
FAILED = (502, "upstream_error", Retry.SAME)


@pytest.mark.parametrize(
    "status, kind, message, expected",
    [
        (400, INVALID, "bad field", OWN),
        (400, INVALID, "The input token count (9) exceeds the maximum number of tokens allowed (8).", LONG),
        (400, INVALID, "API key not valid. Please pass a valid API key.", HIDDEN),
        (400, "FAILED_PRECONDITION", "User location is not supported for the API use.", HIDDEN),
        (400, INVALID, "Logprobs is not supported for this model", ELSEWHERE),
        (403, "PERMISSION_DENIED", "key leaked", HIDDEN),
        (404, "NOT_FOUND", "models/x is not found", (404, None, Retry.NEVER)),
        (429, "RESOURCE_EXHAUSTED", "quota", (429, "rate_limit_exceeded", Retry.OTHER)),
        (500, "INTERNAL", "oops", FAILED),
        (503, "UNAVAILABLE", "overloaded", (503, "upstream_error", Retry.SAME)),
        (504, "DEADLINE_EXCEEDED", "late", FAILED),
    ],
)
@pytest.mark.parametrize("listed", [False, True])
def test_refusals(status: int, kind: str, message: str, expected: tuple[int, str | None, Retry], listed: bool) -> None:
    told_: Any = {"error": {"code": status, "message": message, "status": kind, "details": RETRY}}
    body = json.dumps([told_] if listed else told_).encode()
    error = module("gemini").make(Capabilities()).refusal(status, {}, body)
    assert isinstance(error, UpstreamError)
    assert (error.status, error.code, error.retry) == expected
    assert error.retry_after == (34.5 if status in (429, 503) else None)
    assert (message in error.message) is (expected[0] not in (502, 503))
