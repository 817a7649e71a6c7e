from __future__ import annotations

import json
from typing import Any

from lumen.wire.folded import folded


def part(index: int = 0, **delta: Any) -> bytes:
    return json.dumps({"choices": [{"index": index, "delta": delta}]}).encode()


def call(number: int, arguments: str, **more: Any) -> dict[str, Any]:
    function = {"arguments": arguments, **({"name": more.pop("name")} if "name" in more else {})}
    return {"index": number, "function": function, **more}


def test_plain_text_is_one_choice_and_nothing_is_nothing() -> None:
    assert folded("bees", []) == {"choices": [{"index": 0, "message": {"role": "assistant", "content": "bees"}}]}
    assert folded("", []) is None


def test_calls_of_tools_are_whole_with_their_ids_and_names() -> None:
    parts = [
        part(tool_calls=[call(0, "", id="c1", type="function", name="pay")]),
        part(tool_calls=[call(0, '{"card": "41111111')]),
        part(tool_calls=[call(1, "{}", id="c2", name="look")]),
        part(tool_calls=[call(0, '11111111"}')]),
    ]
    found = folded("I pay.", parts)
    assert found is not None
    (choice,) = found["choices"]
    assert choice["message"]["content"] == "I pay."
    assert choice["message"]["tool_calls"] == [
        {"id": "c1", "type": "function", "function": {"name": "pay", "arguments": '{"card": "4111111111111111"}'}},
        {"id": "c2", "type": "function", "function": {"name": "look", "arguments": "{}"}},
    ]


def test_every_choice_and_what_was_thought_and_refused() -> None:
    parts = [part(reasoning_content="hm"), part(reasoning_content="m"), part(1, content="to"), part(1, content="o"),
             part(2, refusal="no")]  # fmt: skip
    found = folded("first", parts)
    assert found is not None
    first, second, third = (choice["message"] for choice in found["choices"])
    assert (first["content"], first["reasoning_content"]) == ("first", "hmm")
    assert second["content"] == "too" and (third["content"], third["refusal"]) == (None, "no")
