from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from lumen.core.errors import RequestError, UnavailableError
from lumen.wire.ingress.responses_answer import ResponsesDress
from lumen.wire.ingress.responses_request import ResponsesRequest, chat_of, items_of, parse_responses
from lumen.wire.requests import ImagePart, JsonSchemaFormat, NamedTool
from tests.wire.ingress.dressing import call, chunk, counted, dressed, events, whole

_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
LOOK = {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": True}


def parse(**fields: Any) -> ResponsesRequest:
    return parse_responses(msgspec.json.encode({"model": "m", "input": "hi", **fields}))


def stream(*chunks: bytes, **fields: Any) -> list[dict[str, Any]]:
    found = dressed(ResponsesDress(parse(**fields)), chunks)
    for event in found:
        _EVENT.validate_python(event)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found


# -- requests --------------------------------------------------------------------------------------------


def test_a_text_is_a_message_of_the_user() -> None:
    request = chat_of(parse(instructions="be brief", max_output_tokens=9, stream=True))
    assert [(m.role, m.content) for m in request.messages] == [("system", "be brief"), ("user", "hi")]
    assert request.max_completion_tokens == 9
    assert request.stream_options is not None and request.stream_options.include_usage


def test_a_conversation_with_tools() -> None:
    given_items = [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "what is here?"},
                {"type": "input_image", "image_url": "https://x/y.png"},
            ],
        },
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "let me look", "annotations": []}],
        },
        {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "a cat"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "a dog"}]},
        {"role": "assistant", "content": "done"},
        {"role": "assistant", "content": "really"},
    ]
    messages = chat_of(parse(input=given_items)).messages
    assert [message.role for message in messages] == ["user", "assistant", "tool", "tool", "assistant", "assistant"]
    assert isinstance(messages[0].content, list) and isinstance(messages[0].content[1], ImagePart)
    assert (messages[1].content, messages[1].reasoning_content) == ("let me look", "hm")
    assert [made.id for made in messages[1].tool_calls or ()] == ["c1", "c2"]
    assert [(m.tool_call_id, m.content) for m in messages[2:4]] == [("c1", "a cat"), ("c2", "a dog")]
    assert [m.content for m in messages[4:]] == ["done", "really"]


def test_earlier_items_come_first() -> None:
    earlier = items_of(parse(input="first"))
    assert [m.content for m in chat_of(parse(), earlier).messages] == ["first", "hi"]


def test_formats_tools_and_efforts() -> None:
    request = chat_of(
        parse(
            tools=[LOOK],
            tool_choice={"type": "function", "name": "look"},
            parallel_tool_calls=False,
            text={"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}, "verbosity": "low"},
            reasoning={"effort": "low"},
            include=["message.output_text.logprobs"],
        )
    )
    assert isinstance(request.tool_choice, NamedTool)
    assert request.parallel_tool_calls is False
    assert isinstance(request.response_format, JsonSchemaFormat)
    assert (request.verbosity, request.reasoning_effort, request.logprobs) == ("low", "low", True)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": 3}, "input"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": [{"type": "input_video"}]}]}, "input[0].content[0].type"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "input[0].content[0].image_url",
        ),
        ({"input": [{"type": "computer_call"}]}, "input[0].type"),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input[0].call_id"),
        ({"input": [{"type": "reasoning", "summary": []}]}, "input"),
        ({"background": True}, "background"),
        ({"truncation": "auto"}, "truncation"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [LOOK], "tool_choice": {"type": "function", "name": "other"}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.name"),
        ({"temperature": 3}, "temperature"),
    ],
)
def test_what_cannot_be_asked_for_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        chat_of(parse(**fields))
    assert (caught.value.status, caught.value.param) == (400, param)


# -- answers ---------------------------------------------------------------------------------------------


def test_every_event_of_a_text() -> None:
    found = stream(
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Hel"}),
        chunk({"content": "lo"}),
        chunk({}, "stop"),
        counted(),
    )
    assert [event["type"].removeprefix("response.") for event in found] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    response = Response.model_validate(found[-1]["response"])
    assert response.output_text == "Hello"
    assert response.id == found[0]["response"]["id"] == "resp_0a"
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.input_tokens_details.cached_tokens) == (12, 4)
    assert response.usage.output_tokens_details.reasoning_tokens == 2
    assert found[-1]["response"]["store"] is False


def test_thoughts_and_calls_are_items_of_their_own() -> None:
    found = stream(
        chunk({"reasoning_content": "hm"}),
        chunk({"content": "so"}),
        chunk(call(0, "c0", "look", '{"a"')),
        chunk(call(0, arguments=": 1}")),
        chunk(call(1, "c1", "stop", "{}")),
        chunk({}, "tool_calls"),
        tools=[LOOK],
    )
    output = found[-1]["response"]["output"]
    assert [item["type"] for item in output] == ["reasoning", "message", "function_call", "function_call"]
    assert [(item["call_id"], item["arguments"]) for item in output[2:]] == [("c0", '{"a": 1}'), ("c1", "{}")]
    assert output[0]["content"] == [{"type": "reasoning_text", "text": "hm"}]
    assert len({item["id"] for item in output}) == 4
    ended = [event["item"] for event in found if event["type"] == "response.output_item.done"]
    assert ended == output


@pytest.mark.parametrize(("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
def test_an_answer_cut_short_says_why(finish: str, reason: str) -> None:
    last = stream(chunk({"content": "x"}), chunk({}, finish))[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": reason}
    body = msgspec.json.decode(ResponsesDress(parse()).whole(whole({"content": "x"}, finish)))
    assert (body["status"], body["incomplete_details"]["reason"]) == ("incomplete", reason)


def test_whole_answer() -> None:
    dress = ResponsesDress(parse(tools=[LOOK], metadata={"a": "b"}))
    dress.begin("req_0a")
    calls = [{"id": f"c{i}", "type": "function", "function": {"name": "look", "arguments": "{}"}} for i in range(2)]
    told = {"token": "so", "logprob": -0.5, "bytes": [115, 111], "top_logprobs": []}
    body = dress.whole(whole({"content": "so", "tool_calls": calls}, "tool_calls", logprobs={"content": [told]}))
    response = Response.model_validate(msgspec.json.decode(body))
    assert [item.type for item in response.output] == ["message", "function_call", "function_call"]
    assert response.output_text == "so"
    assert response.metadata == {"a": "b"}
    assert response.output[0].content[0].logprobs[0].logprob == -0.5  # type: ignore[union-attr,index]
    assert response.usage is not None and response.usage.total_tokens == 17


def test_a_refusal_is_a_part_of_its_own() -> None:
    found = stream(chunk({"refusal": "no"}), chunk({}, "stop"))
    assert found[-1]["response"]["output"][0]["content"] == [{"type": "refusal", "refusal": "no"}]


def test_an_error_in_a_stream() -> None:
    dress = ResponsesDress(parse())
    dress.begin("req_0a")
    dress.chunk(chunk({"content": "x"}))
    found = events(dress.failed(UnavailableError("No target is left.")))
    assert [event["type"] for event in found] == ["error", "response.failed"]
    told = {"code": "unavailable", "message": "No target is left.", "param": None}
    # As the reference has it, and as the vendor's own servers do, which is what its SDK looks for.
    assert found[0] == {
        "type": "error",
        "sequence_number": 5,
        **told,
        "error": {"type": UnavailableError("").type, **told},
    }
    assert found[1]["response"]["error"] == {"code": "unavailable", "message": "No target is left."}
    assert found[1]["response"]["status"] == "failed"


@given(
    st.lists(st.tuples(st.sampled_from(["content", "reasoning_content", "refusal"]), st.text(min_size=1)), max_size=12)
)
def test_nothing_is_lost_doubled_or_reordered(pieces: list[tuple[str, str]]) -> None:
    found = dressed(ResponsesDress(parse()), [chunk({kind: text}) for kind, text in pieces] + [chunk({}, "stop")])
    deltas = "".join(event["delta"] for event in found if event["type"].endswith(".delta"))
    output = found[-1]["response"]["output"]
    folded = "".join(part.get("text") or part.get("refusal") for item in output for part in item["content"])
    assert deltas == folded == "".join(text for _, text in pieces)
