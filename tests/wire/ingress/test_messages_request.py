from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lumen.core.errors import RequestError
from lumen.wire.anthropic import encode_chat
from lumen.wire.ingress.messages_request import parse_count, parse_messages
from lumen.wire.requests import ChatRequest, JsonSchemaFormat, NamedTool, TextPart


def parse(**fields: Any) -> ChatRequest:
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}], **fields}
    return parse_messages(msgspec.json.encode(body))


LOOK: dict[str, Any] = {
    "name": "look",
    "description": "Looks.",
    "input_schema": {"type": "object", "properties": {"a": {"type": "integer"}}},
}
CONVERSATION: list[dict[str, Any]] = [
    {"role": "user", "content": [{"type": "text", "text": "what is here?", "cache_control": {"type": "ephemeral"}}]},
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "text", "text": "let me look"},
            {"type": "tool_use", "id": "t1", "name": "look", "input": {"a": 1}},
            {"type": "tool_use", "id": "t2", "name": "look", "input": {}},
        ],
    },
    {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "a cat"}]},
            {"type": "tool_result", "tool_use_id": "t2", "content": "no such place", "is_error": True},
            {"type": "text", "text": "and now?"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}},
        ],
    },
]


def test_a_conversation_with_tools() -> None:
    request = parse(messages=CONVERSATION, tools=[LOOK], system=[{"type": "text", "text": "be brief"}])
    assert [message.role for message in request.messages] == ["system", "user", "assistant", "tool", "tool", "user"]
    assistant = request.messages[2]
    assert (assistant.content, assistant.reasoning_content) == ("let me look", "hm")
    assert [(c.id, c.function.arguments) for c in assistant.tool_calls or ()] == [("t1", '{"a":1}'), ("t2", "{}")]
    assert (request.messages[3].tool_call_id, request.messages[3].content) == ("t1", "a cat")
    assert request.messages[4].content == "Error: no such place"
    last = request.messages[5].content
    assert isinstance(last, list) and last[0] == TextPart("and now?")


def test_there_and_back_again() -> None:
    """What goes in is what a target of the same dialect is asked for, but for what only its vendor reads."""
    messages = [CONVERSATION[0], CONVERSATION[1], {**CONVERSATION[2], "content": CONVERSATION[2]["content"][2:]}]
    request = parse(
        messages=messages, tools=[LOOK], tool_choice={"type": "any"}, temperature=0.5, top_k=3, stop_sequences=["END"]
    )
    sent = encode_chat(request, "m", stream=False)
    assert sent["tools"] == [LOOK]
    assert sent["tool_choice"] == {"type": "any"}
    assert (sent["max_tokens"], sent["temperature"], sent["top_k"], sent["stop_sequences"]) == (9, 0.5, 3, ["END"])
    assert sent["messages"][1]["content"] == CONVERSATION[1]["content"][1:]
    assert sent["messages"][2]["content"] == messages[2]["content"]


def test_limits_and_choices() -> None:
    request = parse(
        stream=True,
        tools=[LOOK],
        tool_choice={"type": "tool", "name": "look", "disable_parallel_tool_use": True},
        metadata={"user_id": "u"},
        output_config={"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}},
    )
    assert isinstance(request.tool_choice, NamedTool) and request.tool_choice.function.name == "look"
    assert request.parallel_tool_calls is False
    assert (request.max_tokens, request.user, request.reasoning_effort) == (9, "u", "low")
    assert isinstance(request.response_format, JsonSchemaFormat)
    assert request.stream_options is not None and request.stream_options.include_usage


@pytest.mark.parametrize(
    ("thinking", "effort"),
    [
        ({"type": "disabled"}, "none"),
        ({"type": "adaptive"}, None),
        ({"type": "enabled", "budget_tokens": 1024}, "low"),
        ({"type": "enabled", "budget_tokens": 10_000}, "medium"),
        ({"type": "enabled", "budget_tokens": 40_000}, "high"),
    ],
)
def test_budgets_of_thinking_become_efforts(thinking: dict[str, Any], effort: str | None) -> None:
    assert parse(thinking=thinking).reasoning_effort == effort


def test_a_last_turn_of_its_own_is_gone_on_with() -> None:
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Dear"}]
    assert parse(messages=turns).continue_final_message is True
    assert parse().continue_final_message is None


def test_counting_needs_no_limit() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    assert parse_count(msgspec.json.encode(body)).messages[0].content == "hi"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [{"type": "thinking", "thinking": ""}]}]}, "messages[0].content[0]"),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "image", "source": {"type": "url"}}]}]},
            "messages[0].content[0]",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "file"}}]}]},
            "messages[0].content[0].source",
        ),
        ({"temperature": 1.5}, "temperature"),
        ({"stop_sequences": [""]}, "stop_sequences"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"name": "look"}]}, "tools[0].input_schema"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tools": [LOOK], "tool_choice": {"type": "tool", "name": "other"}}, "tool_choice.name"),
    ],
)
def test_what_cannot_be_asked_for_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse(**fields)
    assert caught.value.status == 400
    assert caught.value.param == param
