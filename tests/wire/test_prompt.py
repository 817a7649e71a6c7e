from __future__ import annotations

import json
from typing import Any

import pytest

from lumen.wire.parse import parse_chat, parse_completion, parse_embedding
from lumen.wire.prompt import parts

CALL = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}


def chat(*messages: dict[str, Any]) -> list[tuple[str, str]]:
    return list(parts(parse_chat(json.dumps({"model": "m", "messages": messages}).encode())))


def test_the_text_of_a_chat_part_by_part() -> None:
    said = [{"type": "text", "text": "What "}, {"type": "text", "text": "is it?"}]
    assert chat({"role": "system", "content": "Be brief."}, {"role": "user", "content": said}) == [
        ("system", "Be brief."),
        ("user", "What is it?"),
    ]
    called = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    told = {"role": "tool", "tool_call_id": "1", "content": "1"}
    assert chat({"role": "user", "content": "a"}, called, told) == [
        ("user", "a"), ("assistant", 'add{"a":1}'), ("tool", "1"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("Once", [("prompt", "Once")]),
        (["Once", "Twice"], [("prompt", "Once")]),
        ([1, 22], [("ids", "1,22")]),
        ([[1, 22], [3]], [("ids", "1,22")]),
    ],
)
def test_of_completions_the_first_prompt(prompt: Any, found: list[tuple[str, str]]) -> None:
    assert list(parts(parse_completion(json.dumps({"model": "m", "prompt": prompt}).encode()))) == found


def test_embeddings_have_no_beginning_to_share() -> None:
    assert list(parts(parse_embedding(b'{"model": "m", "input": "a"}'))) == []
