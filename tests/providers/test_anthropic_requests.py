"""What a chat request becomes in the Anthropic dialect, field by field, and what it refuses to become."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lumen.core.errors import RefusedError
from lumen.providers.base import Capabilities, Resume, module
from lumen.wire.call import completion_call, embedding_call
from lumen.wire.parse import parse_completion, parse_embedding
from tests.providers.asking import call, calling, encoded, refused, tool

PNG = "data:image/png;base64,AAAA"
AUDIO = {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}
PDF = "data:application/pdf;base64,BBBB"
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
ADAPTIVE = {"type": "adaptive", "display": "summarized"}
NEWER, OLDER = "claude-opus-5", "claude-sonnet-4-5-20250929"


def budget(tokens: int) -> dict[str, Any]:
    return {"type": "enabled", "budget_tokens": tokens}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def turn(role: str, *blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": role, "content": list(blocks)}


def user(*parts: dict[str, Any] | str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [text(p) if isinstance(p, str) else p for p in parts]}]


def image(url: str, **more: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **more}}


def schema(**more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", **more}}


FIELDS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("nothing", {}, {"max_tokens": 4096}),
    ("stream", {"stream": True}, {"max_tokens": 4096, "stream": True}),
    ("max_tokens", {"max_tokens": 9}, {"max_tokens": 9}),
    ("max_completion_tokens", {"max_completion_tokens": 8}, {"max_tokens": 8}),
    ("sampling", {"temperature": 1, "top_p": 0.5, "top_k": 4}, {"temperature": 1, "top_p": 0.5, "top_k": 4}),
    ("one stop", {"stop": "x"}, {"stop_sequences": ["x"]}),
    ("stops", {"stop": ["x", "y"]}, {"stop_sequences": ["x", "y"]}),
    ("user", {"user": "u", "metadata": {"k": "v"}}, {"metadata": {"user_id": "u"}}),
    ("tier", {"service_tier": "default"}, {"service_tier": "standard_only"}),
    ("neutral", {"n": 1, "presence_penalty": 0, "logit_bias": {}, "store": False, "verbosity": "medium"}, {}),
    (
        "schema",
        {"response_format": schema(schema=SCHEMA, strict=True)},
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
    ),
    (
        "described schema",
        {"response_format": schema(schema=SCHEMA, description="d")},
        {"output_config": {"format": {"type": "json_schema", "schema": {**SCHEMA, "description": "d"}}}},
    ),
    ("text", {"response_format": {"type": "text"}}, {}),
    (
        "a tool",
        {"tools": [tool(description="d", parameters=SCHEMA, strict=True)]},
        {"tools": [{"name": "f", "description": "d", "input_schema": SCHEMA, "strict": True}]},
    ),
    (
        "a tool without parameters",
        {"tools": [tool()], "tool_choice": "auto", "parallel_tool_calls": True},
        {"tools": [{"name": "f", "input_schema": {"type": "object", "properties": {}}}]},
    ),
    ("none", {"tools": [tool()], "tool_choice": "none"}, {"tool_choice": {"type": "none"}}),
    ("required", {"tools": [tool()], "tool_choice": "required"}, {"tool_choice": {"type": "any"}}),
    ("named", {"tools": [tool()], "tool_choice": tool()}, {"tool_choice": {"type": "tool", "name": "f"}}),
    (
        "one call",
        {"tools": [tool()], "parallel_tool_calls": False},
        {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
    ),
]  # fmt: skip


@pytest.mark.parametrize("given, expected", [row[1:] for row in FIELDS], ids=[row[0] for row in FIELDS])
def test_fields(given: dict[str, Any], expected: dict[str, Any]) -> None:
    made = encoded("anthropic", **given)
    assert made.pop("model") == "m"
    assert made.pop("messages") == [turn("user", text("hi"))]
    default = {"max_tokens": 4096}
    if "tools" in given and "tools" not in expected:
        made.pop("tools")
    assert made == default | expected


CONVERSATIONS: list[tuple[str, list[dict[str, Any]], list[dict[str, Any]] | None, list[dict[str, Any]]]] = [
    (
        "system prompts",
        [
            {"role": "system", "content": "a"},
            {"role": "developer", "content": [text("b"), text("")]},
            {"role": "user", "content": "u"},
        ],
        [text("a"), text("b")],
        [turn("user", text("u"))],
    ),
    (
        "a system prompt in the middle",
        [{"role": "user", "content": "u"}, {"role": "system", "content": "now"}],
        None,
        [turn("user", text("u")), turn("system", text("now"))],
    ),
    (
        "parts",
        user("look", image(PNG), image("https://x.test/a.jpg", detail="high"), {
            "type": "file", "file": {"file_data": PDF, "filename": "a.pdf"},
        }),
        None,
        [
            turn(
                "user",
                text("look"),
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                {"type": "image", "source": {"type": "url", "url": "https://x.test/a.jpg"}},
                {
                    "type": "document",
                    "source": {"type": "base64", "media_type": "application/pdf", "data": "BBBB"},
                    "title": "a.pdf",
                },
            )
        ],
    ),
    (
        "users in a row become one turn",
        [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
        None,
        [turn("user", text("a"), text("b"))],
    ),
    (
        "parallel calls and their results, one from elsewhere",
        [
            {"role": "user", "content": "u"},
            {
                "role": "assistant",
                "content": "well",
                "reasoning_content": "hm",
                "tool_calls": [calling("a", "f", '{"x": 1}'), calling("b:1", "g", "")],
            },
            {"role": "tool", "tool_call_id": "a", "content": "1"},
            {"role": "tool", "tool_call_id": "b:1", "content": [text("2"), text("3")]},
            {"role": "user", "content": "and?"},
        ],
        None,
        [
            turn("user", text("u")),
            turn(
                "assistant",
                text("well"),
                {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
                {"type": "tool_use", "id": "lumen_call_0", "name": "g", "input": {}},
            ),
            turn(
                "user",
                {"type": "tool_result", "tool_use_id": "a", "content": [text("1")]},
                {"type": "tool_result", "tool_use_id": "lumen_call_0", "content": [text("2"), text("3")]},
                text("and?"),
            ),
        ],
    ),
    (
        "an empty result",
        [
            {"role": "user", "content": "u"},
            {"role": "assistant", "tool_calls": [calling("a", "f", "{}")]},
            {"role": "tool", "tool_call_id": "a", "content": ""},
        ],
        None,
        [
            turn("user", text("u")),
            turn("assistant", {"type": "tool_use", "id": "a", "name": "f", "input": {}}),
            turn("user", {"type": "tool_result", "tool_use_id": "a"}),
        ],
    ),
    (
        "a refusal, and a partial answer to go on with",
        [
            {"role": "user", "content": "u"},
            {"role": "assistant", "refusal": "no"},
            {"role": "user", "content": "v"},
            {"role": "assistant", "content": "The best"},
        ],
        None,
        [
            turn("user", text("u")),
            turn("assistant", text("no")),
            turn("user", text("v")),
            turn("assistant", text("The best")),
        ],
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    "messages, system, expected", [row[1:] for row in CONVERSATIONS], ids=[row[0] for row in CONVERSATIONS]
)
def test_conversations(messages: list[Any], system: list[Any] | None, expected: list[Any]) -> None:
    made = encoded("anthropic", messages=messages)
    assert made.get("system") == system
    assert made["messages"] == expected


def test_json_without_a_schema_is_the_input_of_a_tool() -> None:
    made = encoded("anthropic", response_format={"type": "json_object"})
    assert [t["name"] for t in made["tools"]] == ["json_answer"]
    assert made["tool_choice"] == {"type": "tool", "name": "json_answer", "disable_parallel_tool_use": True}


@pytest.mark.parametrize(
    "model, given, thinking, effort, limit",
    [
        (NEWER, {"reasoning_effort": "none"}, {"type": "disabled"}, None, 4096),
        (NEWER, {"reasoning_effort": "low"}, ADAPTIVE, "low", 16_384),
        (NEWER, {"reasoning_effort": "max", "max_tokens": 50}, ADAPTIVE, "max", 50),
        ("claude-sonnet-4-6", {"reasoning_effort": "high"}, ADAPTIVE, "high", 16_384),
        (OLDER, {"reasoning_effort": "none"}, {"type": "disabled"}, None, 4096),
        (OLDER, {"reasoning_effort": "minimal"}, budget(1024), None, 5120),
        (OLDER, {"reasoning_effort": "high"}, budget(24_576), None, 28_672),
        (OLDER, {"reasoning_effort": "high", "max_tokens": 2000}, budget(1999), None, 2000),
        ("claude-3-7-sonnet-latest", {"reasoning_effort": "low"}, budget(2048), None, 6144),
        ("anthropic.claude-opus-4-1@20250805", {"reasoning_effort": "low"}, budget(2048), None, 6144),
        ("claude-haiku-4-5", {"reasoning_effort": "low"}, budget(2048), None, 6144),
    ],
)  # fmt: skip
def test_thinking(model: str, given: Any, thinking: dict[str, Any], effort: str | None, limit: int) -> None:
    made = encoded("anthropic", model, **given)
    assert made["thinking"] == thinking
    assert made.get("output_config", {}).get("effort") == effort
    assert made["max_tokens"] == limit


ASKED = {"role": "user", "content": "What is the weather?"}
TOLD = {"role": "tool", "tool_call_id": "c", "content": "sunny"}
CALLED = {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [calling("c", "f", "{}")]}
ANSWERED = {"role": "assistant", "content": "Sunny."}


@pytest.mark.parametrize(
    ("model", "messages", "thinks"),
    [
        (OLDER, [ASKED, CALLED, TOLD], False),
        (OLDER, [ASKED, CALLED, TOLD, ASKED], False),
        (OLDER, [ASKED, CALLED, TOLD, ANSWERED, ASKED], True),
        (OLDER, [ASKED, ANSWERED], False),
        (OLDER, [ASKED], True),
        (NEWER, [ASKED, CALLED, TOLD], True),
    ],
)
def test_no_thinking_where_the_api_would_want_that_of_the_turn_before(
    model: str, messages: list[Any], thinks: bool
) -> None:
    """Models with a budget refuse results of calls without the signed thoughts that led to them, and begun answers."""
    made = encoded("anthropic", model, messages=messages, tools=[tool()], reasoning_effort="low")
    assert ("thinking" in made) is thinks
    if not thinks:
        assert made["max_tokens"] == 4096


def test_thinking_and_a_schema_share_the_output_config() -> None:
    made = encoded("anthropic", NEWER, reasoning_effort="low", response_format=schema(schema=SCHEMA))
    assert set(made["output_config"]) == {"format", "effort"}


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("n", {"n": 2}),
    ("temperature", {"temperature": 1.01}),
    ("seed", {"seed": 1}),
    ("logprobs", {"logprobs": True}),
    ("logit_bias", {"logit_bias": {"5": 1}}),
    ("presence_penalty", {"presence_penalty": 0.5}),
    ("frequency_penalty", {"frequency_penalty": -0.5}),
    ("min_p", {"min_p": 0.1}),
    ("repeat_penalty", {"repeat_penalty": 1.1}),
    ("return_token_ids", {"return_token_ids": True}),
    ("resume_token_ids", {"resume_token_ids": [1]}),
    ("prediction", {"prediction": {"type": "content", "content": "x"}}),
    ("modalities", {"modalities": ["text", "audio"]}),
    ("verbosity", {"verbosity": "low"}),
    ("store", {"store": True}),
    ("service_tier", {"service_tier": "flex"}),
    ("stop", {"stop": ["a", "\n"]}),
    ("reasoning_effort", {"reasoning_effort": "minimal"}),
    ("temperature", {"reasoning_effort": "low", "temperature": 0.5}),
    ("tool_choice", {"reasoning_effort": "low", "tools": [tool()], "tool_choice": "required"}),
    ("response_format", {"reasoning_effort": "low", "response_format": {"type": "json_object"}}),
    ("response_format", {"tools": [tool()], "response_format": {"type": "json_object"}}),
    ("response_format.json_schema.schema", {"response_format": schema()}),
    ("tools[1].function.name", {"tools": [tool(), tool("a.b")]}),
    ("messages", {"messages": [{"role": "system", "content": "s"}]}),
    ("messages[0].content", {"messages": [{"role": "user", "content": ""}]}),
    ("messages[0].name", {"messages": [{"role": "user", "content": "x", "name": "bob"}]}),
    ("messages[0].role", {"messages": [{"role": "function", "content": "x", "name": "f"}]}),
    ("messages[0].content[0]", {"messages": [{"role": "system", "content": [image(PNG)]}]}),
    ("messages[0].content[0]", {"messages": user(AUDIO)}),
    ("messages[0].content[1].image_url.url", {"messages": user("", image("ftp://x/y.png"))}),
    ("messages[0].content[0].image_url.url", {"messages": user(image("data:image/tiff;base64,AA"))}),
    ("messages[0].content[0].image_url.detail", {"messages": user(image(PNG, detail="low"))}),
    ("messages[0].content[0].file.file_id", {"messages": user({"type": "file", "file": {"file_id": "f"}})}),
    ("messages[0].content[0].file.file_data", {"messages": user({"type": "file", "file": {"file_data": PNG}})}),
    (
        "messages[0].tool_calls[1].function.arguments",
        {"messages": [{"role": "assistant", "tool_calls": [calling("a", "f", "{}"), calling("b", "f", "[1]")]}]},
    ),
    (
        "messages[0].tool_calls[0].function.name",
        {"messages": [{"role": "assistant", "tool_calls": [calling("a", "f g", "")]}]},
    ),
]  # fmt: skip


@pytest.mark.parametrize("param, given", REFUSED, ids=[f"{i}-{row[0]}" for i, row in enumerate(REFUSED)])
def test_what_cannot_be_said_is_refused_by_name(param: str, given: dict[str, Any]) -> None:
    assert refused("anthropic", NEWER, **given) == param


def test_a_budget_below_the_least_is_refused() -> None:
    assert refused("anthropic", OLDER, reasoning_effort="low", max_tokens=1024) == "reasoning_effort"
    assert refused("anthropic", OLDER, reasoning_effort="max") == "reasoning_effort"


def test_what_the_target_is_declared_not_to_do() -> None:
    can = Capabilities(tools=False, images=False, json_schema=False)
    assert refused("anthropic", can=can, tools=[tool()]) == "tools"
    assert refused("anthropic", can=can, messages=user(image(PNG))) == "messages[0].content[0]"
    assert refused("anthropic", can=can, response_format=schema(schema=SCHEMA)) == "response_format"


def test_other_endpoints_and_token_ids_are_refused() -> None:
    made = module("anthropic").make(Capabilities())
    others = [
        completion_call(parse_completion(b'{"model": "m", "prompt": "x"}')),
        embedding_call(parse_embedding(b'{"model": "m", "input": "x"}')),
    ]
    for asked, resume in [(others[0], None), (others[1], None), (call(), Resume([1], None))]:
        with pytest.raises(RefusedError) as caught:
            made.encode(asked, "m", resume)
        assert caught.value.code == "unsupported_by_target"


def test_where_it_goes() -> None:
    made = module("anthropic").make(Capabilities())
    whole, stream = made.encode(call(), "m", None), made.encode(call(stream=True), "m", None)
    assert (whole.path, whole.accept) == ("messages", "application/json")
    assert (stream.path, stream.accept) == ("messages", "text/event-stream")
    assert json.loads(whole.body)["model"] == "m"
    assert module("anthropic").headers("k") == {"x-api-key": "k", "anthropic-version": "2023-06-01"}
