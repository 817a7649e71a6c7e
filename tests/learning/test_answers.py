from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumen.learning.answers import Answer, Compared, Read, ToolUse, facts, refused, side_by_side, tools_valid
from lumen.wire.parse import parse_chat

TOOL = {
    "type": "function",
    "function": {"name": "find", "parameters": {"type": "object", "required": ["q"], "properties": {"q": {}}}},
}


def ask(**more: Any) -> Any:
    return parse_chat(msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": "hi"}], **more}))


def chunk(**delta: Any) -> bytes:
    return msgspec.json.encode({"choices": [{"index": 0, "delta": delta}]})


def test_a_stream_is_put_together() -> None:
    read = Read()
    for data in (
        chunk(role="assistant", content=""),
        chunk(content="Hel"),
        chunk(content="lo"),
        chunk(tool_calls=[{"index": 1, "function": {"name": "find", "arguments": '{"q"'}}]),
        chunk(tool_calls=[{"index": 1, "function": {"arguments": ": 1}"}}]),
        msgspec.json.encode({"choices": [{"index": 1, "delta": {"content": "another choice"}}]}),
        msgspec.json.encode({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}),
        b'{"choices": [], "usage": {}}',
        b"no json",
    ):
        read.add(data)
    assert (read.text, read.tools, read.finish) == ("Hello", (ToolUse("find", '{"q": 1}'),), "tool_calls")


def test_a_whole_answer_is_read() -> None:
    read = Read()
    calls = [{"id": str(n), "type": "function", "function": {"name": f"f{n}", "arguments": "{}"}} for n in range(2)]
    said = {"role": "assistant", "content": "so", "tool_calls": calls}
    read.add(msgspec.json.encode({"choices": [{"index": 0, "message": said, "finish_reason": "stop"}]}))
    assert (read.text, [use.name for use in read.tools]) == ("so", ["f0", "f1"])
    plain = Read()
    plain.add(b'{"choices": [{"index": 0, "text": "old", "finish_reason": "stop"}]}')
    assert (plain.text, plain.finish) == ("old", "stop")


def test_what_is_kept_is_bounded() -> None:
    read = Read(most=10)
    for _ in range(5):
        read.add(chunk(content="abcd"))
    read.add(chunk(tool_calls=[{"index": 0, "function": {"name": "f", "arguments": "x" * 50}}]))
    assert read.text == "abcdabcdab" and read.tools == (ToolUse("f", ""),)


@given(st.binary(max_size=200))
def test_any_bytes_are_taken(data: bytes) -> None:
    Read().add(data)


@pytest.mark.parametrize(
    ("text", "declines"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I cannot assist with this request.", True),
        ("Unfortunately, I can't do that.", True),
        ("I can't believe how good this is! " * 40, False),
        ("Sorry for the delay. Here is the list: 1, 2, 3.", False),
        ("You cannot divide by zero.", False),
    ],
)
def test_words_that_decline(text: str, declines: bool) -> None:
    assert refused(Answer("t", "ok", text)) is declines


def test_marks_that_decline() -> None:
    assert refused(Answer("t", "ok", "fine", refusal=True))
    assert refused(Answer("t", "content_filter"))
    assert refused(Answer("t", "ok", "half", finish="content_filter"))


@pytest.mark.parametrize(
    ("name", "arguments", "valid"),
    [
        ("find", '{"q": 1}', True),
        ("find", "{}", False),
        ("find", '{"q": ', False),
        ("find", "[]", False),
        ("other", '{"q": 1}', False),
    ],
)
def test_calls_of_functions(name: str, arguments: str, valid: bool) -> None:
    answer = Answer("t", "ok", tools=(ToolUse(name, arguments),))
    assert tools_valid(ask(tools=[TOOL]), answer) is valid
    assert tools_valid(ask(tools=[TOOL]), Answer("t", "ok", "text")) is None


def test_the_report_says_how_both_sides_did() -> None:
    request = ask()
    good = facts(request, Answer("old", "ok", "yes", tokens=10, cost=100, ttft=0.5, seconds=1.0))
    cheap = facts(request, Answer("new", "ok", "I can't help with that.", tokens=20, cost=10, ttft=0.1, seconds=2.0))
    broken = facts(request, Answer("new", "timeout"))
    told = side_by_side(
        [
            Compared(good, cheap, (1.0, 0.0), "judge", 0.1),
            Compared(good, cheap, (1.0, 1.0), "judge", 0.2),
            Compared(good, broken),
        ]
    )
    assert (told["pairs"], told["judged"], told["better"], told["worse"], told["equal"]) == (3, 2, 0, 1, 1)
    # Ten requests stand behind the first, five behind the second.
    assert told["quality_change"] == pytest.approx(-10 / 15)
    new = told["candidate"]
    assert (new["answers"], new["failed"], new["cost"], new["ttft"], new["refusals"]) == (3, 1, 10, 0.1, 1.0)
    assert told["incumbent"]["tokens"] == 10 and told["incumbent"]["tool_calls_valid"] is None
    assert side_by_side([])["quality_change"] is None
