"""Recorded answers of the Messages API as clients get them; every ending and every error."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lumen.core.errors import BrokenError, MalformedError, RefusedError, Retry, UpstreamError
from lumen.providers.base import Capabilities, module
from tests.providers.asking import KNOWN, deltas, streamed, told, whole

START = {
    "type": "message_start",
    "message": {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-x",
        "content": [],
        "stop_reason": None,
        "usage": {
            "input_tokens": 10,
            "cache_creation_input_tokens": 20,
            "cache_read_input_tokens": 300,
            "output_tokens": 1,
        },
    },
}
STOP = {"type": "message_stop"}
LOCKED = "The target refused Lumen's credentials."
JSON: dict[str, Any] = {"response_format": {"type": "json_object"}}


def block(index: int, **fields: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": fields}


def delta(index: int, kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **fields}}


def closed(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def end(reason: str, **more: Any) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": reason, **more}, "usage": {"output_tokens": 7}}


def begun(number: int, id: str, name: str) -> dict[str, Any]:
    function = {"name": name, "arguments": ""}
    return {"tool_calls": [{"index": number, "id": id, "type": "function", "function": function}]}


TRANSCRIPT = told(
    START,
    {"type": "ping"},
    block(0, type="thinking", thinking="", signature=""),
    delta(0, "thinking_delta", thinking="so "),
    delta(0, "thinking_delta", thinking="it is"),
    delta(0, "signature_delta", signature="c2ln"),
    closed(0),
    block(1, type="redacted_thinking", data="xx"),
    closed(1),
    block(2, type="text", text=""),
    delta(2, "text_delta", text="Grüße"),
    delta(2, "citations_delta", citation={}),
    delta(2, "text_delta", text=" 🌍"),
    closed(2),
    block(3, type="tool_use", id="t1", name="f", input={}),
    delta(3, "input_json_delta", partial_json=""),
    delta(3, "input_json_delta", partial_json='{"a": '),
    delta(3, "input_json_delta", partial_json="1}"),
    closed(3),
    block(4, type="tool_use", id="t2", name="g", input={}),
    closed(4),
    {"type": "a_new_kind", "index": 9},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {"output_tokens": 90, "output_tokens_details": {"thinking_tokens": 40}},
    },
    STOP,
)


def test_a_transcript() -> None:
    events = streamed("anthropic", TRANSCRIPT, resume=None, stream_options={"include_usage": True})
    said = deltas(events)
    assert all(index == 0 for index, _, _ in said)
    assert [(d, f) for _, d, f in said] == [
        ({"role": "assistant", "content": ""}, None),
        ({"reasoning_content": "so "}, None),
        ({"reasoning_content": "it is"}, None),
        ({"content": "Grüße"}, None),
        ({"content": " 🌍"}, None),
        (begun(0, "t1", "f"), None),
        ({"tool_calls": [{"index": 0, "function": {"arguments": '{"a": '}}]}, None),
        ({"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]}, None),
        (begun(1, "t2", "g"), None),
        ({"tool_calls": [{"index": 1, "function": {"arguments": "{}"}}]}, None),
        ({}, "tool_calls"),
    ]
    last = json.loads(events[-1].data)
    assert (last["id"], last["model"], last["choices"]) == ("msg_1", "claude-x", [])
    assert last["usage"] == {
        "prompt_tokens": 330,
        "completion_tokens": 90,
        "total_tokens": 420,
        "prompt_tokens_details": {"cached_tokens": 300, "cache_write_tokens": 20},
        "completion_tokens_details": {"reasoning_tokens": 40},
    }


def test_any_cut_gives_the_same() -> None:
    expected = streamed("anthropic", TRANSCRIPT, resume=KNOWN)
    for step in (1, 2, 3, 7, 64, 1000):
        assert streamed("anthropic", TRANSCRIPT, step=step, resume=KNOWN) == expected


def test_a_continuation_keeps_identity_and_role() -> None:
    events = streamed("anthropic", TRANSCRIPT, resume=KNOWN)
    assert {json.loads(e.data)["id"] for e in events if e.data} == {"chatcmpl-x"}
    assert not any("role" in d for _, d, _ in deltas(events))


@pytest.mark.parametrize(
    "reason, finish",
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "content_filter"),
    ],
)
def test_endings(reason: str, finish: str) -> None:
    events = streamed("anthropic", told(START, block(0, type="text", text="a"), closed(0), end(reason), STOP))
    assert deltas(events)[-1] == (0, {}, finish)
    answer = {"id": "m", "content": [{"type": "text", "text": "a"}], "stop_reason": reason}
    assert whole("anthropic", answer)[0]["choices"][0]["finish_reason"] == finish


def test_a_refusal_says_why() -> None:
    why = {"type": "refusal", "category": "bio", "explanation": "not this"}
    events = streamed("anthropic", told(START, end("refusal", stop_details=why), STOP))
    assert [d for _, d, _ in deltas(events)][1:] == [{"refusal": "not this"}, {}]
    answer = {"content": [], "stop_reason": "refusal", "stop_details": why}
    message = whole("anthropic", answer)[0]["choices"][0]["message"]
    assert (message["content"], message["refusal"]) == (None, "not this")


def test_a_reason_that_cannot_be_passed_on_is_an_error() -> None:
    with pytest.raises(RefusedError):
        streamed("anthropic", told(START, end("pause_turn"), STOP), step=1)
    with pytest.raises(RefusedError):
        whole("anthropic", {"content": [], "stop_reason": "something_new"})


def test_json_by_tool_is_text() -> None:
    data = told(
        START,
        block(0, type="tool_use", id="t", name="json_answer", input={}),
        delta(0, "input_json_delta", partial_json='{"a":'),
        delta(0, "input_json_delta", partial_json="1}"),
        closed(0),
        end("tool_use"),
        STOP,
    )
    said = deltas(streamed("anthropic", data, **JSON))
    assert [d.get("content") for _, d, _ in said] == ["", '{"a":', "1}", None]
    assert said[-1][2] == "stop"
    block_ = {"type": "tool_use", "id": "t", "name": "json_answer", "input": {"a": 1}}
    answer, _ = whole("anthropic", {"content": [block_], "stop_reason": "tool_use"}, **JSON)
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": '{"a":1}', "refusal": None}
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_a_whole_answer() -> None:
    answer, event = whole(
        "anthropic",
        {
            "id": "msg_2",
            "type": "message",
            "model": "claude-x",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "text", "text": "a"},
                {"type": "text", "text": "b"},
                {"type": "tool_use", "id": "t1", "name": "f", "input": {"x": [1, "ü"]}},
            ],
            "stop_reason": "tool_use",
            "usage": {"input_tokens": 3, "output_tokens": 4},
        },
    )
    assert answer == {
        "id": "chatcmpl-x",
        "object": "chat.completion",
        "created": 5,
        "model": "claude-x",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "ab",
                    "reasoning_content": "hm",
                    "tool_calls": [
                        {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"x":[1,"ü"]}'}}
                    ],
                    "refusal": None,
                },
                "finish_reason": "tool_calls",
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
    }
    assert event.finished == (0,) and event.usage is not None


def test_no_counts_are_not_zero_counts() -> None:
    answer, event = whole("anthropic", {"content": [{"type": "text", "text": "a"}], "stop_reason": "end_turn"})
    assert "usage" not in answer and event.usage is None
    silent = {"type": "message_start", "message": {"id": "m"}}
    events = streamed("anthropic", told(silent, {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, STOP))
    assert not any(e.usage for e in events)


def test_every_end_before_the_last_word_is_broken() -> None:
    marks = [i + 2 for i in range(len(TRANSCRIPT)) if TRANSCRIPT[i : i + 2] == b"\n\n"][:-1]
    assert len(marks) > 15
    for mark in marks:
        with pytest.raises(BrokenError):
            streamed("anthropic", TRANSCRIPT[:mark])


@pytest.mark.parametrize(
    "error, code, message",
    [
        ({"type": "overloaded_error", "message": "Overloaded"}, "overloaded_error", "Overloaded"),
        ({"type": "api_error"}, "api_error", "The target reported an error in its answer."),
        ({"type": "authentication_error", "message": "key sk-1"}, "upstream_error", LOCKED),
        ("what", "upstream_error", "what"),
        ([1], "upstream_error", "[1]"),
    ],
)
def test_errors_inside_an_answer(error: Any, code: str, message: str) -> None:
    reported = {"type": "error", "error": error}
    for read in (
        lambda: streamed("anthropic", told(START, block(0, type="text", text="a"), reported), step=9),
        lambda: whole("anthropic", reported),
    ):
        with pytest.raises(RefusedError) as caught:
            read()
        assert (caught.value.code, caught.value.message) == (code, message)
        assert caught.value.retry is Retry.OTHER and caught.value.upstream_status == 200


@pytest.mark.parametrize("payload", [b"{", b"[]", b'{"type": 5}', b"null", b"\xff", b'{"type":"content_block_start"}'])
def test_events_that_are_none(payload: bytes) -> None:
    with pytest.raises(MalformedError):
        streamed("anthropic", told(START) + b"data: " + payload + b"\n\n", step=1)


INVALID = "invalid_request_error"
OWN = (400, None, Retry.NEVER)
LONG = (400, "context_length_exceeded", Retry.NEVER)
ELSEWHERE = (400, "unsupported_by_target", Retry.OTHER)
HIDDEN = (502, "upstream_error", Retry.OTHER)
FAILED = (502, "upstream_error", Retry.SAME)


@pytest.mark.parametrize(
    "status, kind, message, expected",
    [
        (400, INVALID, "messages: bad", OWN),
        (400, INVALID, "prompt is too long: 9 tokens > 8 maximum", LONG),
        (400, INVALID, "input length and `max_tokens` exceed context limit: 9 + 9 > 8", LONG),
        (400, INVALID, "This model does not support assistant message prefill.", ELSEWHERE),
        (400, INVALID, "`temperature` is deprecated for this model.", ELSEWHERE),
        (400, INVALID, "role 'system' is not supported on this model", ELSEWHERE),
        (400, INVALID, "Output blocked by content filtering policy", (400, "content_filter", Retry.NEVER)),
        (400, INVALID, "Your credit balance is too low for account 7", HIDDEN),
        (401, "authentication_error", "invalid x-api-key", HIDDEN),
        (402, "billing_error", "pay", HIDDEN),
        (403, "permission_error", "no", HIDDEN),
        (404, "not_found_error", "model: nope", (404, None, Retry.NEVER)),
        (413, "request_too_large", "big", (413, None, Retry.NEVER)),
        (429, "rate_limit_error", "slow", (429, "rate_limit_exceeded", Retry.OTHER)),
        (500, "api_error", "oops", FAILED),
        (529, "overloaded_error", "Overloaded", FAILED),
    ],
)
def test_refusals(status: int, kind: str, message: str, expected: tuple[int, str | None, Retry]) -> None:
    body = json.dumps({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}).encode()
    error = module("anthropic").make(Capabilities()).refusal(status, {"retry-after": "3"}, body)
    assert isinstance(error, UpstreamError)
    assert (error.status, error.code, error.retry) == expected
    shown = expected[0] not in (502,)
    assert (message in error.message) is shown
