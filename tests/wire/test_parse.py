from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumen.core.errors import RequestError
from lumen.wire.parse import parse_chat, parse_completion, parse_embedding

GOOD: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}


def chat(**fields: Any) -> bytes:
    return json.dumps({**GOOD, **fields}).encode()


def refused(body: bytes, parse: Any = parse_chat) -> RequestError:
    with pytest.raises(RequestError) as caught:
        parse(body)
    error = caught.value
    assert error.status == 400
    assert error.type == "invalid_request_error"
    assert error.message
    return error


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"null",
        b"\xff\xfe",
        b'{"model": "m", "messages": [{"role": "user", "content": "\xff"}]}',
        b'{"model": "m", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"model": "m", "messages": [{"role": "user", "content": "x"}], "zz": NaN}',
        b'{"model": "m", "messages": [{"role": "user", "content": "x"}], "n": ' + b"9" * 5000 + b"}",
        b'{"model": "m", "metadata": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"model": "m", "unknown": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
        chat()[:-1],
        chat() + b"x",
    ],
    ids=range(14),
)
def test_not_a_request(body: bytes) -> None:
    refused(body)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": ["hi"]}, "messages[0]"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "zip"}]}]}, "messages[0].content[0].type"),
        ({"messages": [*GOOD["messages"], {"role": "tool", "content": "x"}]}, "messages[1].tool_call_id"),
        ({"model": 5}, "model"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"n": 1.5}, "n"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 1.1}, "top_p"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 10**12}, "max_completion_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 5}, "max_tokens"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"top_logprobs": -1, "logprobs": True}, "top_logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"logit_bias": {"cat": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias[...]"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a", ""]}, "stop"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {"name": "bad name"}}]}, "tools[0].function.name"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"resume_token_ids": [1], "n": 2}, "resume_token_ids"),
    ],
)
def test_bad_field_names_its_param(fields: dict[str, Any], param: str) -> None:
    assert refused(chat(**fields)).param == param


def test_missing_model_says_so() -> None:
    error = refused(b'{"messages": [{"role": "user", "content": "x"}]}')
    assert (error.param, error.code) == ("model", "missing_required_parameter")


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 128},
        {"temperature": 0},
        {"temperature": 2, "top_p": 0.5, "seed": -5},
        {"stop": ["a", "b"]},
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "get_weather"}}},
        {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False},
        {"logprobs": True, "top_logprobs": 20},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"n": None, "temperature": None, "stop": None, "tools": None, "stream": None},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]},
    ],
)
def test_good_requests_pass(fields: dict[str, Any]) -> None:
    parse_chat(chat(**fields))


def test_unknown_fields_never_come_out_at_any_depth() -> None:
    body = chat(
        chat_template="{{ evil }}",
        api_base="http://elsewhere",
        tools=[{**TOOL, "secret": 1, "function": {**TOOL["function"], "url": "x"}}],
        messages=[{"role": "user", "content": [{"type": "text", "text": "a", "path": "/etc"}], "exec": 1}],
    )
    out = msgspec.json.encode(parse_chat(body))
    for word in (b"chat_template", b"evil", b"api_base", b"secret", b"url", b"path", b"exec"):
        assert word not in out


def test_what_goes_in_comes_out() -> None:
    body = {
        **GOOD,
        "tools": [TOOL],
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]},
            {
                "role": "assistant",
                "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "1", "content": "22"},
        ],
        "response_format": {"type": "json_object"},
    }
    assert json.loads(msgspec.json.encode(parse_chat(json.dumps(body).encode()))) == body


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda c: st.lists(c) | st.dictionaries(st.text(), c)
    )
)
def test_whatever_comes_is_a_request_or_a_400(value: Any) -> None:
    for parse in (parse_chat, parse_completion, parse_embedding):
        try:
            parse(json.dumps(value).encode())
        except RequestError as error:
            assert error.status == 400


@given(st.binary(max_size=200))
def test_any_bytes_are_a_400(body: bytes) -> None:
    refused(body)


@pytest.mark.parametrize("prompt", ["x", "", ["a", "b"], [1, 2], [[1], [2, 3]]])
def test_prompts(prompt: Any) -> None:
    parse_completion(json.dumps({"model": "m", "prompt": prompt}).encode())


@pytest.mark.parametrize("prompt", [None, 5, [], [[]], [1, "a"], [-1], [True], [["a"]], ["a", [1]]])
def test_bad_prompts(prompt: Any) -> None:
    error = refused(json.dumps({"model": "m", "prompt": prompt}).encode(), parse_completion)
    assert error.param and error.param.startswith("prompt")


@pytest.mark.parametrize("given_input", ["", [], [""], None, {"a": 1}, ["x"] * 2049])
def test_bad_embedding_inputs(given_input: Any) -> None:
    error = refused(json.dumps({"model": "m", "input": given_input}).encode(), parse_embedding)
    assert error.param and error.param.startswith("input")
