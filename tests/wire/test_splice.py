"""Seams as the client sees them: payloads, identity, finish, usage, tool calls, reasoning."""

from __future__ import annotations

import json

import pytest

from lumen.core.errors import UpstreamError
from lumen.core.resume import Rung
from lumen.core.trace import Trace
from lumen.wire.matching import Diverged
from lumen.wire.splice import Seam, splice_comment
from tests.wire.splicing import answer, broken, choice, chunk, go_on, payloads, read, resumed

TEXT_RUNGS = (Rung.REPLAY_EXACT, Rung.PREFILL, Rung.ANCHORED)


def tool(number: int, arguments: str, name: str | None = None, id: str | None = None) -> bytes:
    function = {"arguments": arguments} | ({"name": name} if name else {})
    call = {"index": number, "function": function} | ({"id": id, "type": "function"} if id else {})
    return chunk(choice({"tool_calls": [call]}))


def test_the_comment_is_one_line() -> None:
    comment = splice_comment(origin="a/b", target="c\nd", rung=Rung.TOKEN_EXACT, at=12, seam_ms=45.4)
    assert comment == b': lumen-splice {"from":"a/b","to":"c\\nd","rung":"token-exact","at":12,"seam_ms":45}\n\n'


def test_token_exact_has_no_seam() -> None:
    with pytest.raises(ValueError, match="token-exact"):
        Seam(Rung.TOKEN_EXACT, Trace(1))


def test_diverged_is_an_upstream_error_without_text() -> None:
    error = Diverged("it started over")
    assert isinstance(error, UpstreamError)
    assert error.code == "upstream_diverged"


def test_usage_is_that_of_the_whole() -> None:
    usage = {"prompt_tokens": 30, "completion_tokens": 5, "total_tokens": 35,
             "prompt_tokens_details": {"cached_tokens": 29}}  # fmt: skip
    data = chunk(choice({"content": " c"})) + chunk(choice({}, "stop")) + chunk(usage=usage)
    for rung, known, prompt, completion in (
        (Rung.PREFILL, None, 28, 7),
        (Rung.PREFILL, 11, 11, 7),
    ):
        trace = broken(answer(["a", " b"], finish=None))
        trace.prompt_tokens = known
        events = go_on(rung, trace, data)
        told = payloads(events)[-1]["usage"]
        assert (told["prompt_tokens"], told["completion_tokens"]) == (prompt, completion)
        assert told["total_tokens"] == prompt + completion
        assert told["prompt_tokens_details"]["cached_tokens"] == min(29, prompt)
        # What the attempt cost stays what the target counted.
        assert events[-1].usage is not None and events[-1].usage.completion_tokens == 5


def test_usage_of_a_repetition_is_already_whole() -> None:
    trace = broken(answer(["a", " b"], finish=None))
    told = payloads(go_on(Rung.REPLAY_EXACT, trace, answer(["a b", " c"], usage=(4, 3))))
    assert told[-1]["usage"] == {"prompt_tokens": 4, "completion_tokens": 3, "total_tokens": 7}


def test_settled_says_when_the_answer_is_found() -> None:
    trace = broken(answer(["one two"], finish=None))
    seam = Seam(Rung.REPLAY_EXACT, trace)
    first, second, third = read(
        chunk(choice({"content": "one"})) + chunk(choice({"content": " two three"})) + chunk(choice({}, "stop"))
    )
    assert [e.data for e in seam.feed([first])] == [b""]
    assert not seam.settled
    (given,) = seam.feed([second])
    assert seam.settled and given.text == " three" and given.content
    (last,) = seam.feed([third])
    assert last.finished == (0,)


def test_held_text_is_not_delivered() -> None:
    """A second break while text is held: the trace knows only what the client has."""
    before = "a partial answer whose end must be repeated"
    trace = broken(answer([before], finish=None))
    for event in go_on(Rung.ANCHORED, trace, answer(["whose end must"], finish=None)):
        assert not event.content
    assert trace.text == before


def test_logprobs_of_cut_text_are_dropped() -> None:
    trace = broken(answer(["ab"], finish=None))
    data = chunk(choice({"content": "abc"}, logprobs={"content": []})) + chunk(
        choice({"content": "d"}, logprobs={"content": []})
    )
    cut, plain = payloads(go_on(Rung.REPLAY_EXACT, trace, data))
    assert "logprobs" not in cut["choices"][0] and "logprobs" in plain["choices"][0]


def test_token_ids_are_not_those_of_the_answer() -> None:
    trace = broken(answer(["ab"], finish=None))
    events = go_on(Rung.PREFILL, trace, chunk(choice({"content": " c"}, token_ids=[5])))
    assert events[0].token_ids is None
    assert not trace.exact


def test_one_finish_per_choice() -> None:
    trace = broken(answer(["ab"], finish=None))
    events = go_on(Rung.PREFILL, trace, chunk(choice({}, "stop")) + chunk(choice({}, "stop")))
    assert [e.finished for e in events] == [(0,), ()]
    assert len(payloads(events)) == 1


def test_text_with_the_finish_in_one_chunk() -> None:
    trace = broken(answer(["one two"], finish=None))
    go_on(Rung.REPLAY_EXACT, trace, chunk(choice({"content": "one two three"}, "stop")))
    assert trace.text == "one two three" and trace.complete


def test_text_completions() -> None:
    trace = Trace(1)
    trace.add(True, (), None, ("a", 1), "one")
    body = {"id": "b", "created": 2, "choices": [{"index": 0, "text": "one two", "finish_reason": None}]}
    (given,) = go_on(Rung.REPLAY_EXACT, trace, b"data: " + json.dumps(body).encode() + b"\n\n")
    assert json.loads(given.data)["choices"][0]["text"] == " two"
    assert trace.text == "one two"


@pytest.mark.parametrize("rung", [Rung.PREFILL, Rung.ANCHORED])
def test_thoughts_of_the_new_target_stay_there(rung: Rung) -> None:
    before = "a partial answer whose end must be repeated"
    trace = broken(answer([before], finish=None))
    data = chunk(choice({"reasoning": "Hm.", "reasoning_details": [{"text": "Hm."}]}))
    said = before if rung is Rung.ANCHORED else ""
    events = go_on(rung, trace, data + answer([said + " now"]))
    assert all(b"Hm." not in e.data for e in events)
    assert trace.text == before + " now" and not trace.reasoning


def test_restart_after_reasoning() -> None:
    trace = broken(chunk(choice({"role": "assistant", "reasoning_content": "Let me"}), id="a"))
    data = chunk(choice({"reasoning_content": "So"})) + chunk(choice({"reasoning_content": " it is"})) + answer(["42"])
    told = payloads(go_on(Rung.RESTART, trace, data))
    thoughts = "".join(c["delta"].get("reasoning_content") or "" for body in told for c in body["choices"])
    assert thoughts == "\n\nSo it is"
    assert trace.text == "42" and {body["id"] for body in told} == {"a"}


def test_restart_after_whitespace() -> None:
    trace = broken(answer(["\n"], finish=None))
    go_on(Rung.RESTART, trace, answer(["\n", "\n", "Hi"]))
    assert trace.text == "\n\nHi"


class TestToolCalls:
    FIRST = tool(0, '{"ci', "weather", "call_a")

    def test_a_repetition_goes_on_inside_the_arguments(self) -> None:
        trace = broken(answer(["Let me see."], finish=None) + self.FIRST)
        data = answer(["Let me", " see."], finish=None) + tool(0, "", "weather", "call_b")
        data += (
            tool(0, '{"city":') + tool(0, '"Oslo"}') + tool(1, "{}", "time", "call_c") + chunk(choice({}, "tool_calls"))
        )
        told = payloads(go_on(Rung.REPLAY_EXACT, trace, data))
        calls = [c for body in told for c in body["choices"][0]["delta"].get("tool_calls") or ()]
        assert calls[:2] == [
            {"index": 0, "function": {"arguments": 'ty":'}},
            {"index": 0, "function": {"arguments": '"Oslo"}'}},
        ]
        assert (calls[2]["id"], calls[2]["function"]["name"]) == ("call_c", "time")
        assert told[-1]["choices"][0]["finish_reason"] == "tool_calls"

    @pytest.mark.parametrize(
        "data",
        [
            tool(0, '{"ci', "clock", "b"),
            tool(0, '{"to', "weather", "b"),
            answer(["Let me see. And"], finish=None),
            answer(["Let me see."], finish=None) + tool(1, "{}", "time", "b"),
            answer(["Let me see."]),
            answer(["Let me see."], finish=None) + tool(0, '{"c', "weather", "b") + chunk(choice({}, "tool_calls")),
        ],
    )
    def test_another_call_is_another_answer(self, data: bytes) -> None:
        trace = broken(answer(["Let me see."], finish=None) + self.FIRST)
        size = len(trace.parts)
        with pytest.raises(Diverged):
            go_on(Rung.REPLAY_EXACT, trace, data)
        assert len(trace.parts) == size and trace.text == "Let me see."

    def test_a_call_right_after_the_seam(self) -> None:
        trace = broken(answer(["Let me see"], finish=None))
        events = go_on(Rung.PREFILL, trace, answer(["Let"], finish=None) + tool(0, "{}", "time", "c"))
        # "Let" could have been a start from scratch until the call came.
        assert trace.text == "Let me seeLet" and events[-1].actionable
        trace = broken(answer(["Let me see"], finish=None))
        with pytest.raises(Diverged):
            go_on(Rung.ANCHORED, trace, tool(0, "{}", "time", "c"))


class TestChoices:
    def test_a_repetition_of_two(self) -> None:
        first = chunk(choice({"content": "one"})) + chunk(choice({"content": "ONE"}, index=1))
        first += chunk(choice({}, "stop", index=1))
        trace = broken(first, answers=2, n=2)
        data = chunk(choice({"content": "one two"}), choice({"content": "ONE"}, index=1))
        data += chunk(choice({}, "stop", index=1)) + chunk(choice({}, "stop"))
        events = go_on(Rung.REPLAY_EXACT, trace, data, n=2)
        assert [
            (c["index"], c["delta"].get("content"), c["finish_reason"]) for b in payloads(events) for c in b["choices"]
        ] == [
            (0, " two", None),
            (0, None, "stop"),
        ]
        assert trace.complete

    def test_one_of_two_differs(self) -> None:
        first = chunk(choice({"content": "one"})) + chunk(choice({"content": "ONE"}, index=1))
        trace = broken(first, answers=2, n=2)
        with pytest.raises(Diverged):
            go_on(
                Rung.REPLAY_EXACT,
                trace,
                chunk(choice({"content": "one two"})) + chunk(choice({"content": "TWO"}, index=1)),
                n=2,
            )


def test_a_repetition_of_reasoning_and_answer() -> None:
    trace = broken(chunk(choice({"reasoning": "Hm."})) + answer(["4"], finish=None))
    go_on(Rung.REPLAY_EXACT, trace, chunk(choice({"reasoning_content": "Hm."})) + answer(["42"]))
    assert trace.text == "42"
    trace = broken(chunk(choice({"reasoning": "Hm."})) + answer(["4"], finish=None))
    with pytest.raises(Diverged):
        go_on(Rung.REPLAY_EXACT, trace, chunk(choice({"reasoning": "Hm. And"})))


@pytest.mark.parametrize("rung", TEXT_RUNGS)
def test_two_splices_of_one_answer(rung: Rung) -> None:
    full = "The quick brown fox jumps over the lazy dog, and nothing more is said of it here."
    trace = broken(answer([full[:30]], id="a", finish=None))
    for end in (60, len(full)):
        begin = len(trace.text) if rung is Rung.PREFILL else 0
        told = payloads(go_on(rung, trace, answer([full[begin:end]], finish="stop" if end == len(full) else None)))
        assert {body["id"] for body in told} == {"a"}
    assert trace.text == full and trace.complete


def test_resumed_checks_the_stream() -> None:
    assert resumed(Rung.PREFILL, "Hello", [" wor", "ld"]) == "Hello world"
