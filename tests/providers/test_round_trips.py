"""A tool call as one vendor made it goes back, through the client's hands, to the same vendor and to every other."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lumen.providers.base import Capabilities, module
from tests.providers.asking import call, encoded, told, tool, whole

DIALECTS = ("anthropic", "gemini", "openai")
ARGUMENTS = {"city": "Zürich", "deep": {"list": [1, None, "\n"]}}
ANSWERS: dict[str, Any] = {
    "anthropic": {
        "id": "m",
        "content": [
            {"type": "text", "text": "let me see"},
            {"type": "tool_use", "id": "toolu_1", "name": "f", "input": ARGUMENTS},
            {"type": "tool_use", "id": "toolu_2", "name": "g", "input": {}},
        ],
        "stop_reason": "tool_use",
    },
    "gemini": {
        "candidates": [
            {
                "content": {
                    "parts": [
                        {"text": "let me see"},
                        {"functionCall": {"name": "f", "args": ARGUMENTS}, "thoughtSignature": "sig"},
                        {"functionCall": {"name": "g"}},
                    ]
                },
                "finishReason": "STOP",
            }
        ],
        "responseId": "r",
    },
    "openai": {
        "id": "c",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "let me see",
                    "tool_calls": [
                        {
                            "id": "call:1",
                            "type": "function",
                            "function": {"name": "f", "arguments": json.dumps(ARGUMENTS)},
                        },
                        {"id": "call:2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
                    ],
                },
                "finish_reason": "tool_calls",
            }
        ],
    },
}
TOOLS = [tool(), tool("g")]


def conversation(vendor: str) -> list[dict[str, Any]]:
    """What a client sends after it has run the tools."""
    said = whole(vendor, ANSWERS[vendor], tools=TOOLS)[0]["choices"][0]["message"]
    results = [
        {"role": "tool", "tool_call_id": made["id"], "content": f"result of {made['function']['name']}"}
        for made in said["tool_calls"]
    ]
    return [{"role": "user", "content": "hi"}, said, *results]


def called(dialect: str, body: dict[str, Any]) -> list[tuple[str, str, Any, str]]:
    """Id, name, arguments and result of every call in a request, read in its own dialect."""
    if dialect == "anthropic":
        blocks = [block for turn in body["messages"] for block in turn["content"]]
        results = {b["tool_use_id"]: b["content"][0]["text"] for b in blocks if b["type"] == "tool_result"}
        return [(b["id"], b["name"], b["input"], results[b["id"]]) for b in blocks if b["type"] == "tool_use"]
    if dialect == "gemini":
        parts = [part for turn in body["contents"] for part in turn["parts"]]
        answers = [part["functionResponse"] for part in parts if "functionResponse" in part]
        results = {answer["id"]: answer["response"]["output"] for answer in answers}
        calls = [part["functionCall"] for part in parts if "functionCall" in part]
        return [(c["id"], c["name"], c["args"], results[c["id"]]) for c in calls]
    messages = body["messages"]
    results = {m["tool_call_id"]: m["content"] for m in messages if m["role"] == "tool"}
    return [
        (c["id"], c["function"]["name"], json.loads(c["function"]["arguments"]), results[c["id"]])
        for m in messages
        for c in m.get("tool_calls", ())
    ]


@pytest.mark.parametrize("origin", DIALECTS)
@pytest.mark.parametrize("target", DIALECTS)
def test_calls_and_results_arrive_whole(origin: str, target: str) -> None:
    found = called(target, encoded(target, "gemini-3-pro", messages=conversation(origin), tools=TOOLS))
    assert [row[1:] for row in found] == [("f", ARGUMENTS, "result of f"), ("g", {}, "result of g")]
    assert len({row[0] for row in found}) == 2


def test_geminis_signature_comes_home() -> None:
    body = encoded("gemini", "gemini-3-pro", messages=conversation("gemini"), tools=TOOLS)
    parts = [part for turn in body["contents"] for part in turn["parts"] if "functionCall" in part]
    assert [part.get("thoughtSignature") for part in parts] == ["sig", None]


def test_streamed_and_whole_calls_are_the_same() -> None:
    stream = told(ANSWERS["gemini"])
    decoder = module("gemini").make(Capabilities()).decoder(call(stream=True), "text/event-stream", None)
    events = decoder.feed(stream) + decoder.finish()
    made = [c for e in events if e.actionable for c in json.loads(e.data)["choices"][0]["delta"]["tool_calls"]]
    expected = conversation("gemini")[1]["tool_calls"]
    for one in made:
        one.pop("index")
    # Ids are the answer's own where the vendor gives none, so only they differ.
    assert [{**one, "id": ""} for one in made] == [{**one, "id": ""} for one in expected]
