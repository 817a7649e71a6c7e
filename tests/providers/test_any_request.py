"""Any request the gateway takes becomes one the vendor's schema allows, or is refused by the name of a field."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lumen.core.errors import RefusedError, RequestError
from lumen.providers.base import Capabilities, module
from lumen.wire.call import Call, chat_call
from lumen.wire.parse import parse_chat
from tests.providers.shapes import check_anthropic, check_gemini

WORDS = st.sampled_from(["", "a", "word", "ü🌍", " "])
NAMES = st.sampled_from(["f", "look_up", "a.b", "9x", "-y"])
URLS = st.sampled_from(
    [
        "data:image/png;base64,AA",
        "data:image/tiff;base64,AA",
        "data:image/png,AA",
        "https://x.test/a.png",
        "https://x.test/a",
        "http://x.test/a.png",
        "gs://b/c",
        "nonsense",
    ]
)
ARGUMENTS = st.sampled_from(["", "{}", '{"a": [1]}', "[]", "{", "null"])


def maybe(*fields: tuple[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with any of these fields."""
    return st.fixed_dictionaries({}, optional=dict(fields))


TEXT = st.fixed_dictionaries({"type": st.just("text"), "text": WORDS})
IMAGE = st.fixed_dictionaries(
    {
        "type": st.just("image_url"),
        "image_url": st.fixed_dictionaries(
            {"url": URLS}, optional={"detail": st.sampled_from(["auto", "low", "high"])}
        ),
    }
)
AUDIO = st.fixed_dictionaries(
    {
        "type": st.just("input_audio"),
        "input_audio": st.fixed_dictionaries({"data": st.just("QQ=="), "format": st.sampled_from(["wav", "ogg"])}),
    }
)
FILE = st.fixed_dictionaries(
    {
        "type": st.just("file"),
        "file": maybe(
            ("file_data", st.sampled_from(["data:application/pdf;base64,QQ==", "QQ=="])),
            ("file_id", WORDS),
            ("filename", WORDS),
        ),
    }
)
CONTENT = st.one_of(WORDS, st.lists(st.one_of(TEXT, TEXT, IMAGE, AUDIO, FILE), min_size=1, max_size=3))
CALLED = st.fixed_dictionaries(
    {
        "id": st.sampled_from(["a", "b:1", ""]),
        "type": st.just("function"),
        "function": st.fixed_dictionaries({"name": NAMES, "arguments": ARGUMENTS}),
    },
    optional={"extra_content": st.sampled_from([None, {}, {"google": {"thought_signature": "s"}}, {"other": 1}])},
)
MESSAGE = st.one_of(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "developer", "user"]), "content": CONTENT}),
    st.fixed_dictionaries({"role": st.just("user"), "content": CONTENT}, optional={"name": NAMES}),
    st.fixed_dictionaries(
        {"role": st.just("assistant"), "content": st.one_of(st.none(), CONTENT)},
        optional={
            "tool_calls": st.lists(CALLED, max_size=2),
            "refusal": WORDS,
            "reasoning_content": WORDS,
        },
    ),
    st.fixed_dictionaries({"role": st.just("tool"), "content": CONTENT, "tool_call_id": st.sampled_from(["a", "b:1"])}),
    st.fixed_dictionaries({"role": st.just("function"), "content": WORDS, "name": NAMES}),
)
TOOL = st.fixed_dictionaries(
    {
        "type": st.just("function"),
        "function": st.fixed_dictionaries(
            {"name": NAMES},
            optional={
                "description": WORDS,
                "parameters": st.sampled_from([None, {}, {"type": "object", "properties": {"a": {}}}, {"anyOf": []}]),
                "strict": st.booleans(),
            },
        ),
    }
)
SCHEMA = st.fixed_dictionaries(
    {"name": NAMES}, optional={"schema": st.sampled_from([None, {"type": "object"}]), "description": WORDS}
)
FORMAT = st.one_of(
    st.sampled_from([{"type": "text"}, {"type": "json_object"}]),
    st.fixed_dictionaries({"type": st.just("json_schema"), "json_schema": SCHEMA}),
)
CHOICE = st.one_of(
    st.sampled_from(["none", "auto", "required"]),
    NAMES.map(lambda name: {"type": "function", "function": {"name": name}}),
)
OPTIONS = maybe(
    ("stream", st.booleans()),
    ("n", st.integers(1, 10)),
    ("temperature", st.floats(0, 2)),
    ("top_p", st.floats(0, 1)),
    ("top_k", st.integers(-1, 5)),
    ("min_p", st.sampled_from([0, 0.5])),
    ("max_tokens", st.integers(1, 100_000)),
    ("stop", st.one_of(st.sampled_from(["x", "\n"]), st.lists(st.just("y"), max_size=7))),
    ("seed", st.integers(-(2**63), 2**63 - 1)),
    ("presence_penalty", st.floats(-2, 2)),
    ("logit_bias", st.sampled_from([{}, {"7": 1}])),
    ("logprobs", st.booleans()),
    ("user", WORDS),
    ("metadata", st.just({"k": "v"})),
    ("tools", st.lists(TOOL, max_size=3)),
    ("tool_choice", CHOICE),
    ("parallel_tool_calls", st.booleans()),
    ("response_format", FORMAT),
    ("reasoning_effort", st.sampled_from(["none", "minimal", "low", "medium", "high", "xhigh", "max", "odd"])),
    ("verbosity", st.sampled_from(["low", "medium"])),
    ("service_tier", st.sampled_from(["auto", "default", "flex", "priority"])),
    ("store", st.booleans()),
    ("modalities", st.sampled_from([["text"], ["audio"]])),
    ("continue_final_message", st.booleans()),
)
REQUESTS = st.tuples(st.lists(MESSAGE, min_size=1, max_size=5), OPTIONS)
MODELS = {
    "anthropic": ["claude-opus-5", "claude-sonnet-4-5"],
    "gemini": ["gemini-3-pro", "gemini-2.5-flash"],
}
CHECKS: dict[str, Callable[[bytes], None]] = {"anthropic": check_anthropic, "gemini": check_gemini}


def parsed(messages: list[Any], options: dict[str, Any]) -> Call | None:
    """A call, where the gateway takes it at all."""
    try:
        return chat_call(parse_chat(json.dumps({"model": "m", "messages": messages, **options}).encode()))
    except RequestError:
        return None


def present(body: Any, param: str) -> bool:
    """Whether a param such as `messages[0].content` leads somewhere, at least as far as its object."""
    path = param.replace("[", ".[").split(".")
    for step in path[:-1]:
        body = body[int(step[1:-1])] if step.startswith("[") else body[step]
    return body is not None


@pytest.mark.parametrize("dialect", sorted(MODELS))
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(asked=REQUESTS, newer=st.booleans())
def test_it_is_taken_by_the_schema_or_refused_by_name(
    dialect: str, asked: tuple[list[Any], dict[str, Any]], newer: bool
) -> None:
    messages, options = asked
    call = parsed(messages, options)
    if call is None:
        return
    made = module(dialect).make(Capabilities())
    try:
        sent = made.encode(call, MODELS[dialect][0 if newer else 1], None)
    except RefusedError as error:
        assert error.code == "unsupported_by_target" and error.param
        assert present({"messages": messages, **options}, error.param)
        return
    CHECKS[dialect](sent.body)


def test_the_search_reaches_both_outcomes() -> None:
    """Were nearly everything refused, the property would say nothing."""
    seen = {"taken": 0, "refused": 0}

    @settings(max_examples=200, database=None, derandomize=True, deadline=None)
    @given(asked=REQUESTS)
    def count(asked: tuple[list[Any], dict[str, Any]]) -> None:
        # Few options at a time: with all of them, some field is always one too many.
        call = parsed(asked[0], dict(list(asked[1].items())[:2]))
        for dialect, models in MODELS.items() if call is not None else ():
            assert call is not None
            try:
                module(dialect).make(Capabilities()).encode(call, models[0], None)
                seen["taken"] += 1
            except RefusedError:
                seen["refused"] += 1

    count()
    assert min(seen.values()) >= 20, seen
