from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumen.core.errors import MalformedError, RequestError, UnavailableError
from lumen.wire.ingress.messages_answer import MessagesDress, error_object
from tests.wire.ingress.dressing import call, chunk, counted, dressed, events, whole


def test_text_is_one_block_between_start_and_stop() -> None:
    found = dressed(
        MessagesDress(),
        [
            chunk({"role": "assistant", "content": ""}),
            chunk({"content": "Hel"}),
            chunk({"content": "lo"}),
            chunk({}, "stop"),
            counted(),
        ],
    )
    assert [event["type"] for event in found] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    start = found[0]["message"]
    assert (start["id"], start["model"], start["content"], start["stop_reason"]) == ("chatcmpl-1", "m-1", [], None)
    assert found[5]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert found[5]["usage"] == {
        "input_tokens": 8,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 4,
        "output_tokens": 5,
    }


def test_thoughts_text_and_parallel_calls_are_blocks_of_their_own() -> None:
    found = dressed(
        MessagesDress(),
        [
            chunk({"reasoning_content": "hm"}),
            chunk({"content": "so"}),
            chunk(call(0, "c0", "look", '{"a"')),
            chunk(call(0, arguments=": 1}")),
            chunk(call(1, "c1", "stop")),
            chunk({}, "tool_calls"),
        ],
    )
    started = [event["content_block"] for event in found if event["type"] == "content_block_start"]
    assert started == [
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "text", "text": ""},
        {"type": "tool_use", "id": "c0", "name": "look", "input": {}},
        {"type": "tool_use", "id": "c1", "name": "stop", "input": {}},
    ]
    assert _folded(found) == {0: "hm", 1: "so", 2: '{"a": 1}', 3: ""}
    assert [event["index"] for event in found if event["type"] == "content_block_stop"] == [0, 1, 2, 3]
    assert found[-2]["delta"]["stop_reason"] == "tool_use"


@pytest.mark.parametrize(
    ("finish", "stop"),
    [("stop", "end_turn"), ("length", "max_tokens"), ("tool_calls", "tool_use"), ("content_filter", "refusal")],
)
def test_stop_reasons(finish: str, stop: str) -> None:
    assert dressed(MessagesDress(), [chunk({}, finish)])[-2]["delta"]["stop_reason"] == stop
    assert msgspec.json.decode(MessagesDress().whole(whole({"content": "x"}, finish)))["stop_reason"] == stop


def test_a_stop_sequence_that_the_target_names_is_told() -> None:
    found = dressed(MessagesDress(), [chunk({"content": "x"}, "stop", stop_reason="END")])
    assert found[-2]["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": "END"}


def test_whole_answer() -> None:
    function = {"name": "look", "arguments": '{"a": 1}'}
    message = {
        "content": "so",
        "reasoning_content": "hm",
        "tool_calls": [{"id": "c0", "type": "function", "function": function}],
    }
    body = msgspec.json.decode(MessagesDress().whole(whole(message, "tool_calls")))
    assert body["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": ""},
        {"type": "text", "text": "so"},
        {"type": "tool_use", "id": "c0", "name": "look", "input": {"a": 1}},
    ]
    assert body["usage"]["input_tokens"] == 8
    assert (body["type"], body["role"], body["stop_reason"]) == ("message", "assistant", "tool_use")


def test_arguments_that_are_no_object_are_handed_on_as_they_are() -> None:
    function = {"name": "look", "arguments": "{broken"}
    body = MessagesDress().whole(whole({"tool_calls": [{"id": "c", "function": function}]}, "tool_calls"))
    assert msgspec.json.decode(body)["content"][0]["input"] == {"invalid_json": "{broken"}


def test_a_chunk_that_is_no_chunk_is_the_targets_error() -> None:
    with pytest.raises(MalformedError):
        MessagesDress().chunk(b'{"choices":[{"delta":{"tool_calls":[{"index":"x"}]}}]}')


def test_errors_in_a_stream_and_before_it() -> None:
    dress = MessagesDress()
    dress.begin("req_0a")
    error = UnavailableError("No target is left.")
    told = {"type": "overloaded_error", "message": "No target is left."}
    assert events(dress.failed(error)) == [{"type": "error", "error": told, "request_id": "req_0a"}]
    assert error_object(RequestError("No.", status=418))["error"]["type"] == "invalid_request_error"
    assert error_object(RequestError("No.", status=404))["error"]["type"] == "not_found_error"
    assert error_object(MalformedError("No.", phase="body"))["error"]["type"] == "api_error"


_PIECES = st.lists(
    st.one_of(
        st.tuples(st.just("content"), st.text(min_size=1)),
        st.tuples(st.just("reasoning_content"), st.text(min_size=1)),
    )
)


@given(_PIECES)
def test_nothing_is_lost_doubled_or_reordered(pieces: list[tuple[str, str]]) -> None:
    found = dressed(MessagesDress(), [chunk({kind: text}) for kind, text in pieces] + [chunk({}, "stop")])
    kinds = [event["content_block"]["type"] for event in found if event["type"] == "content_block_start"]
    assert all(one != other for one, other in itertools.pairwise(kinds))
    assert "".join(_folded(found).values()) == "".join(text for _, text in pieces)


def _folded(found: list[dict[str, Any]]) -> dict[int, str]:
    """The text of every block, by its index; deltas outside an open block fail."""
    blocks: dict[int, str] = {}
    open_one: int | None = None
    for event in found:
        match event["type"]:
            case "content_block_start":
                assert open_one is None
                open_one = event["index"]
                blocks[event["index"]] = ""
            case "content_block_delta":
                assert event["index"] == open_one
                delta = event["delta"]
                blocks[event["index"]] += delta.get("text") or delta.get("thinking") or delta.get("partial_json") or ""
            case "content_block_stop":
                assert event["index"] == open_one
                open_one = None
    assert open_one is None
    return blocks
