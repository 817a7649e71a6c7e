from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumen.workers.llamacpp.chat import families
from lumen.workers.llamacpp.chat.output import Delta, OutputMachine, StreamParser
from lumen.workers.llamacpp.chat.reasoning import ReasoningParser

TOOLS = [{"type": "function", "function": {"name": name}} for name in ("get_weather", "add")]

#: Pieces of text that lie close to what the machines look for.
BITS = st.sampled_from(
    [
        *(
            "<tool_call>",
            "</tool_call>",
            "<tool",
            "_call>",
            "<",
            ">",
            "[TOOL_CALLS]",
            "[ARGS]",
            "[",
            "]",
            "<|python_tag|>",
        ),
        *('{"name": "add", "arguments": {"a": 1}}', '{"name": "add"', ', "arguments": ', '{"a": [1, "}"]}', "}", "{"),
        *(
            '{"name": "nobody", "arguments": {}}',
            '"parameters": {',
            '"arguments": "{\\"a\\": 2}"',
            "null",
            "add",
            ";",
            ",",
        ),
        *('{"tool_calls": [', '{"name": "get_weather", "parameters": {"city": "Z\u00fcrich"}}', "```json", "```", "\n"),
        *(
            "<think>",
            "</think>",
            "\n\n",
            "  ",
            " " * 40,
            "stop",
            "STO",
            "P",
            "é",
            "😀",
            "plain text",
            '{"a": 1}',
            '"\\u00',
            'e9"',
        ),
    ]
)
BYTES = st.one_of(
    BITS.map(str.encode), st.binary(max_size=4), st.text(max_size=6).map(lambda t: t.encode("utf-8", "replace"))
)
ANSWERS = st.lists(BYTES, max_size=14).map(b"".join)
STOPS = st.lists(st.sampled_from(["stop", "STOP", "\n\n", "}", "é", "STO", "x" * 9]), max_size=3)
STYLES = ("none", "hermes", "llama3", "mistral", "mistral_args", "generic", "think", "think+hermes", "thinking+llama3")


def make_parser(style: str) -> StreamParser | None:
    if style == "none":
        return None
    marks, _, name = (
        style.rpartition("+") if "+" in style else ((style, "", "") if style == "think" else ("", "", style))
    )
    inner = families.load(name).parser(TOOLS, None, lambda index: f"call_{index}", False) if name else None
    return ReasoningParser(inner, "<think>", "</think>", marks == "thinking") if marks else inner


@dataclass
class Folded:
    """Deltas put together as a client does."""

    content: str = ""
    reasoning: str = ""
    calls: list[list[Any]] = field(default_factory=list)

    def add(self, deltas: list[Delta]) -> None:
        for delta in deltas:
            assert sum(part is not None for part in (delta.content, delta.reasoning, delta.tool)) == 1
            self.content += delta.content or ""
            self.reasoning += delta.reasoning or ""
            if delta.content is not None or delta.reasoning is not None:
                assert delta.content or delta.reasoning, "an empty delta"
            if delta.tool is not None:
                if delta.tool.id is not None:
                    assert delta.tool.index == len(self.calls)
                    assert delta.tool.arguments == ""
                    self.calls.append([delta.tool.id, delta.tool.name, ""])
                else:
                    assert delta.tool.index == len(self.calls) - 1
                    assert delta.tool.name is None
                    assert delta.tool.arguments
                    self.calls[-1][2] += delta.tool.arguments


def run(style: str, stops: list[str], pieces: list[bytes], include_stop: bool = False) -> tuple[Folded, str, bool]:
    machine = OutputMachine(make_parser(style), stops, include_stop)
    folded = Folded()
    for piece in pieces:
        folded.add(machine.push(piece))
    deltas, reason = machine.finish("stop")
    folded.add(deltas)
    return folded, reason, machine.stopped


def cut(answer: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({place % (len(answer) + 1) for place in cuts} | {0, len(answer)})
    return [answer[a:b] for a, b in pairwise(places)]


@pytest.mark.parametrize("style", STYLES)
@settings(max_examples=120, deadline=None)
@given(answer=ANSWERS, stops=STOPS, cuts=st.lists(st.integers(0, 500), max_size=8), include=st.booleans())
def test_the_answer_does_not_depend_on_the_cuts(
    style: str, answer: bytes, stops: list[str], cuts: list[int], include: bool
) -> None:
    whole = run(style, stops, [answer], include)
    assert run(style, stops, [bytes([byte]) for byte in answer], include) == whole
    assert run(style, stops, cut(answer, cuts), include) == whole


@settings(max_examples=200, deadline=None)
@given(answer=ANSWERS, stops=STOPS, include=st.booleans())
def test_plain_text_is_what_decoding_and_searching_the_whole_gives(
    answer: bytes, stops: list[str], include: bool
) -> None:
    text = answer.decode("utf-8", "replace")
    ends = sorted((text.find(stop) + len(stop), text.find(stop)) for stop in set(stops) if stop in text)
    expected = text if not ends else text[: ends[0][0] if include else ends[0][1]]
    folded, reason, stopped = run("none", stops, [bytes([byte]) for byte in answer], include)
    assert (folded.content, stopped, reason) == (expected, bool(ends), "stop")


@pytest.mark.parametrize("style", ["none", "hermes", "mistral"])
@settings(max_examples=100, deadline=None)
@given(text=st.text(alphabet="abc <>[]tolT_LCA\n", max_size=80))
def test_what_is_held_of_text_is_no_longer_than_what_could_match(style: str, text: str) -> None:
    stops = ["abcabcabc"]
    openers = {"none": "", "hermes": "<tool_call>", "mistral": "[TOOL_CALLS]"}
    text = "a" + text.replace(openers[style] or "\0", "")
    machine = OutputMachine(make_parser(style), stops)
    seen = Folded()
    for number, char in enumerate(text, 1):
        seen.add(machine.push(char.encode()))
        if machine.stopped or machine.calls or (openers[style] and openers[style] in text[:number]):
            return
        assert number - len(seen.content) <= max(len(stops[0]), len(openers[style])) + len(stops[0]) - 2


@pytest.mark.parametrize("style", STYLES)
@settings(max_examples=40, deadline=None)
@given(answer=ANSWERS, stops=STOPS)
def test_a_replay_stands_where_the_first_run_stood(style: str, answer: bytes, stops: list[str]) -> None:
    pieces = cut(answer, list(range(0, 500, 7)))
    whole, reason, _ = run(style, stops, pieces)
    for at in range(len(pieces) + 1):
        first, second = OutputMachine(make_parser(style), stops), OutputMachine(make_parser(style), stops)
        folded = Folded()
        for piece in pieces[:at]:
            folded.add(first.push(piece))
            second.push(piece)
        assert (first.opening, first.holding, first.calls, first.stopped) == (
            *(second.opening, second.holding, second.calls, second.stopped),
        )
        for piece in pieces[at:]:
            folded.add(second.push(piece))
        deltas, end = second.finish("stop")
        folded.add(deltas)
        assert (folded, end) == (whole, reason)


def test_a_character_is_held_until_it_is_whole() -> None:
    machine = OutputMachine(None, [])
    assert machine.push("é".encode()[:1]) == []
    assert machine.holding
    assert machine.push("é".encode()[1:]) == [Delta(content="é")]
    assert not machine.holding
    assert machine.push(b"\xf0\x9f") == []
    assert machine.finish("length") == ([Delta(content="\ufffd")], "length")


def test_the_stop_that_is_complete_first_wins() -> None:
    machine = OutputMachine(None, ["abcd", "c"])
    assert machine.push(b"ab") == []
    assert machine.push(b"cd") == [Delta(content="ab")]
    assert machine.stopped
    assert machine.push(b"more") == []
    assert machine.finish("stop") == ([], "stop")


def test_a_stop_that_does_not_come_is_given_out() -> None:
    machine = OutputMachine(None, ["###"])
    assert machine.push(b"a##") == [Delta(content="a")]
    assert machine.push(b"b#") == [Delta(content="##b")]
    assert machine.finish("length") == ([Delta(content="#")], "length")


def test_stops_do_not_cut_calls_or_reasoning() -> None:
    answer = '<think>one\n\ntwo</think>\n\n<tool_call>\n{"name": "add", "arguments": {"a": "x\\n\\ny"}}\n\n</tool_call>'
    folded, reason, stopped = run("think+hermes", ["\n\n", "}"], [answer.encode()])
    assert (folded.reasoning, folded.content, reason, stopped) == ("one\n\ntwo", "", "tool_calls", False)
    assert folded.calls == [["call_0", "add", '{"a": "x\\n\\ny"}']]


def test_length_stays_length_with_calls() -> None:
    machine = OutputMachine(make_parser("hermes"), [])
    machine.push(b'<tool_call>{"name": "add", "arguments": {"a": 1')
    assert machine.finish("length") == ([], "length")
    assert machine.calls == 1


def test_a_thousand_plain_pieces_come_out_at_once_and_whole() -> None:
    machine = OutputMachine(make_parser("hermes"), ["\n\nUser:"])
    out = [machine.push(b" word") for _ in range(1000)]
    assert out[0] == [Delta(content=" word")]
    assert all(deltas == [Delta(content=" word")] for deltas in out)
