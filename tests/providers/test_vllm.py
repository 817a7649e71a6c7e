"""vLLM's dialect: what goes out to go on from token ids, and what comes back as if the answer had never stopped."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumen.core.errors import BrokenError, RefusedError, UpstreamError
from lumen.core.trace import Trace
from lumen.providers.base import Capabilities, Decoder, Resume, module
from lumen.wire.call import Call, Event, chat_call, completion_call
from lumen.wire.matching import Diverged
from lumen.wire.parse import parse_chat, parse_completion

DIALECT = module("vllm").make(Capabilities(local=True, token_ids=True, sampler_state=False, prefill="continue"))
PROMPT = [1, 302, 203]
Token = tuple[list[int], str]  # the ids of one event and the text that came with them


def call(**fields: Any) -> Call:
    body = {"model": "route", "messages": [{"role": "user", "content": "hi"}], "stream": True, **fields}
    return chat_call(parse_chat(json.dumps(body).encode()))


def completion(**fields: Any) -> Call:
    body = {"model": "route", "prompt": "hi", "stream": True, **fields}
    return completion_call(parse_completion(json.dumps(body).encode()))


def event(payload: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps({"model": "served", **payload}).encode() + b"\n\n"


def usage(prompt: int, output: int, cached: int | None = None) -> bytes:
    details = {} if cached is None else {"prompt_tokens_details": {"cached_tokens": cached}}
    counts = {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output, **details}
    return event({"id": "u", "object": "o", "created": 9, "choices": [], "usage": counts})


def chat_stream(tokens: list[Token], finish: str = "stop") -> bytes:
    """As vLLM streams a chat that was asked for token ids."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 5}
    role = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
    made = event({**head, "choices": [role], "prompt_token_ids": PROMPT, "prompt_text": None})
    for place, (ids, text) in enumerate(tokens):
        end = finish if place == len(tokens) - 1 else None
        choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": end, "token_ids": ids}
        made += event({**head, "choices": [choice]})
    return made + usage(3, sum(len(ids) for ids, _ in tokens), 0) + b"data: [DONE]\n\n"


def completion_stream(tokens: list[Token], prompt: int, finish: str = "stop") -> bytes:
    """As vLLM streams a completion whose prompt is token ids."""
    head = {"id": "cmpl-2", "object": "text_completion", "created": 7}
    made = b""
    for place, (ids, text) in enumerate(tokens):
        end = finish if place == len(tokens) - 1 else None
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": end, "stop_reason": None,
                  "prompt_token_ids": list(range(prompt)) if place == 0 else None, "token_ids": ids}  # fmt: skip
        made += event({**head, "choices": [choice]})
    return made + usage(prompt, sum(len(ids) for ids, _ in tokens), prompt) + b"data: [DONE]\n\n"


def read(decoder: Decoder, data: bytes) -> list[Event]:
    return decoder.feed(data) + decoder.finish()


def decoder(asked: Call, resume: Resume | None = None) -> Decoder:
    return DIALECT.decoder(asked, "text/event-stream", resume)


def traced(events: list[Event], trace: Trace | None = None) -> Trace:
    """What the gateway keeps of these events."""
    trace = trace or Trace(1)
    for e in events:
        trace.add(e.content, e.finished, e.token_ids, e.identity, e.text, e.actionable, e.reasoning, e.data)
        if e.prompt_ids is not None:
            trace.prompt_ids = e.prompt_ids
    return trace


def resumed(trace: Trace, context: int | None = 4096) -> Resume:
    return Resume(trace.token_ids, trace.identity, prompt_ids=trace.prompt_ids, ahead=trace.ahead, context=context)


def sent(asked: Call, resume: Resume | None = None) -> tuple[str, dict[str, Any]]:
    made = DIALECT.encode(asked, "served", resume)
    return made.path, json.loads(made.body)


# --- out -------------------------------------------------------------------------------------------------------


def test_a_fresh_chat_asks_for_token_ids_in_vllms_own_names() -> None:
    path, body = sent(call(repeat_penalty=1.2, top_k=5, min_p=0.1, max_completion_tokens=9))
    assert path == "chat/completions"
    assert body["return_token_ids"] is True and body["stream_options"] == {"include_usage": True}
    assert (body["repetition_penalty"], body["top_k"], body["min_p"]) == (1.2, 5, 0.1)
    assert "repeat_penalty" not in body and "resume_token_ids" not in body
    assert "return_token_ids" not in sent(call(stream=False))[1]
    assert "return_token_ids" not in sent(call(n=2))[1]


def test_a_sampler_that_it_lacks_is_refused_not_ignored() -> None:
    with pytest.raises(RefusedError, match="typical_p"):
        sent(call(typical_p=0.5))
    sent(call(typical_p=1))


def test_going_on_is_a_completion_of_all_tokens_so_far() -> None:
    resume = Resume([7, 8], ("chatcmpl-1", 5), prompt_ids=PROMPT, context=2048)
    path, body = sent(call(max_tokens=10, temperature=0.5, top_p=0.9, seed=3, logit_bias={"5": 1}), resume)
    assert path == "completions"
    assert body["prompt"] == [*PROMPT, 7, 8]
    assert body["max_tokens"] == 8
    assert (body["temperature"], body["top_p"], body["seed"], body["logit_bias"]) == (0.5, 0.9, 3, {"5": 1})
    assert body["stream"] is True and body["return_token_ids"] is True
    assert "messages" not in body and body["model"] == "served"


def test_prefixes_that_it_computes_are_kept_apart_by_a_salt() -> None:
    salted = msgspec.structs.replace(call(), salt="3f2a")
    assert sent(salted)[1] == {**sent(call())[1], "cache_salt": "3f2a"}
    resume = Resume([7, 8], ("chatcmpl-1", 5), prompt_ids=PROMPT, context=2048)
    assert sent(salted, resume)[1] == {**sent(call(), resume)[1], "cache_salt": "3f2a"}


@pytest.mark.parametrize("rank", [-1, 1])
def test_whose_turn_it_is_is_told_by_a_number_of_which_the_lower_goes_first(rank: int) -> None:
    ranked = msgspec.structs.replace(call(), salt="3f2a", rank=rank)
    assert sent(ranked)[1] == {**sent(call())[1], "cache_salt": "3f2a", "priority": -rank}


@pytest.mark.parametrize(
    ("fields", "most"),
    [
        ({"max_tokens": 2}, 1),
        ({"max_completion_tokens": 5}, 3),
        ({}, 2048),
    ],
)
def test_what_is_left_of_the_limit(fields: dict[str, Any], most: int) -> None:
    resume = Resume([7, 8], ("x", 5), prompt_ids=PROMPT, context=2048)
    assert sent(call(**fields), resume)[1]["max_tokens"] == most


# --- back ------------------------------------------------------------------------------------------------------


def test_ids_are_known_where_a_character_ends() -> None:
    tokens: list[Token] = [
        ([7], "a"), ([8], ""), ([9], ""), ([10], "日"), ([11, 12], "bc"), ([13], "d"), ([14], ""), ([2], ""),
    ]  # fmt: skip
    events = [e for e in read(decoder(call()), chat_stream(tokens)) if e.data or e.usage]
    assert events[0].prompt_ids == PROMPT and not any(e.prompt_ids for e in events[1:])
    assert [e.token_ids for e in events[1:-1]] == [[7], [], [], [8, 9, 10], [], [11, 12, 13], [], []]
    assert all(b"token_ids" not in e.data for e in events)
    trace = traced(events[:6])
    assert (trace.token_ids, trace.text, trace.ahead) == ([7, 8, 9, 10], "a日bc", "bc")
    assert trace.exact
    trace = traced(events[:7])
    assert (trace.token_ids, trace.ahead) == ([7, 8, 9, 10, 11, 12, 13], "")


def test_a_target_that_tells_no_ids_is_not_taken_for_exact() -> None:
    chunk = event({"id": "x", "created": 1, "choices": [{"index": 0, "delta": {"content": "a"}}]})
    (found,) = decoder(call()).feed(chunk)
    assert found.token_ids is None and found.prompt_ids is None
    assert not traced([found]).exact


def test_it_goes_on_as_the_chat_it_was() -> None:
    resume = Resume([7, 8], ("chatcmpl-1", 5), prompt_ids=PROMPT)
    asked = call(stream_options={"include_usage": True})
    events = read(decoder(asked, resume), completion_stream([([9], "b"), ([10], "c"), ([2], "")], 5))
    chunks = [json.loads(e.data) for e in events]
    assert {(c["id"], c["created"], c["object"], c["model"]) for c in chunks} == {
        ("chatcmpl-1", 5, "chat.completion.chunk", "served")
    }
    assert [c["choices"][0]["delta"] for c in chunks[:-1]] == [{"content": "b"}, {"content": "c"}, {}]
    assert [c["choices"][0]["finish_reason"] for c in chunks[:-1]] == [None, None, "stop"]
    assert not any("token_ids" in e.data.decode() for e in events)
    assert [e.token_ids for e in events] == [[9], [10], [], None]
    assert events[2].finished == (0,)
    # Of the whole answer, not of what this process added to it.
    told = events[-1].usage
    assert told is not None and told.prompt_tokens_details is not None
    assert (told.prompt_tokens, told.completion_tokens, told.total_tokens) == (3, 5, 8)
    assert told.prompt_tokens_details.cached_tokens == 3
    assert chunks[-1]["usage"] == {
        "prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8, "prompt_tokens_details": {"cached_tokens": 3},
    }  # fmt: skip


def test_a_completion_goes_on_as_one() -> None:
    resume = Resume([7], ("cmpl-1", 5), prompt_ids=PROMPT)
    events = read(decoder(completion(return_token_ids=True), resume), completion_stream([([9], "b"), ([2], "")], 4))
    first = json.loads(events[0].data)
    assert (first["id"], first["object"], first["choices"][0]["text"]) == ("cmpl-1", "text_completion", "b")
    assert first["choices"][0]["token_ids"] == [9]
    assert events[-1].data == b""  # usage that nobody asked for


@pytest.mark.parametrize("pieces", [["bcd"], ["b", "c", "d"], ["bc", "d"]])
def test_text_that_the_client_has_already_is_not_said_twice(pieces: list[str]) -> None:
    resume = Resume([7], ("x", 5), prompt_ids=PROMPT, ahead="bc")
    tokens: list[Token] = [([20 + place], text) for place, text in enumerate(pieces)]
    events = read(decoder(call(), resume), completion_stream([*tokens, ([2], "")], 4))
    assert "".join(e.text or "" for e in events) == "d"
    told = [one for e in events for one in e.token_ids or []]
    assert told == [ids[0] for ids, _ in tokens]


@pytest.mark.parametrize("tokens", [[([9], "x")], [([9], "b"), ([10], "x")], [([9], "b"), ([2], "")]])
def test_other_text_than_before_is_not_handed_on(tokens: list[Token]) -> None:
    resume = Resume([7], ("x", 5), prompt_ids=PROMPT, ahead="bc")
    going = decoder(call(), resume)
    with pytest.raises(Diverged):
        assert not any(e.text for e in going.feed(completion_stream(tokens, 4)))
        going.feed(b"")


def test_an_end_without_finish_is_broken_and_an_error_is_one() -> None:
    resume = Resume([7], ("x", 5), prompt_ids=PROMPT)
    whole = completion_stream([([9], "b"), ([2], "")], 4)
    going = decoder(call(), resume)
    going.feed(whole[: whole.index(b"\n\n") + 2])
    with pytest.raises(BrokenError):
        going.finish()
    for wrong in (b'data: {"error": {"message": "m"}}\n\n', b"data: {nonsense\n\n"):
        with pytest.raises(UpstreamError):
            decoder(call(), resume).feed(wrong)


# --- the whole way ---------------------------------------------------------------------------------------------

# Any answer: events of one or more tokens, some with no text yet because a character is not complete.
PIECES = st.sampled_from(["", "a", " b", "日", "é", "cd"])
ANSWERS = st.lists(st.tuples(st.integers(1, 3), PIECES), min_size=1, max_size=25)


@given(answer=ANSWERS, data=st.data())
def test_cut_anywhere_and_gone_on_the_answer_is_the_unbroken_one(
    answer: list[tuple[int, str]], data: st.DataObject
) -> None:
    """The engine is deterministic: after the same tokens the same ones follow, in events that begin where one ended."""
    tokens: list[Token] = []
    for count, text in answer:
        first = 100 + sum(len(ids) for ids, _ in tokens)
        tokens.append((list(range(first, first + count)), text))
    tokens.append(([2], ""))
    every = [one for ids, _ in tokens for one in ids]
    cut = data.draw(st.integers(1, len(tokens) - 1))
    # One event more: the role.
    trace = traced(decoder(call()).feed(part(chat_stream(tokens), cut + 1)))
    for last in (False, False, True):
        if not trace.token_ids:
            return  # nothing is sure yet: another rung
        resume = resumed(trace)
        prompt = sent(call(), resume)[1]["prompt"]
        known = len(prompt) - len(PROMPT)
        assert prompt == [*PROMPT, *every[:known]]
        rest = following(tokens, known)
        assert rest is not None, "it must go on where an event ended"
        stream = completion_stream(rest, len(prompt))
        size = len(rest) if last else data.draw(st.integers(0, len(rest)))
        traced(decoder(call(), resume).feed(part(stream, size)), trace)
        if trace.complete:
            break
    assert trace.complete
    assert trace.text == "".join(text for _, text in tokens)


def part(stream: bytes, events: int) -> bytes:
    return b"".join(one + b"\n\n" for one in stream.split(b"\n\n")[:events])


def following(tokens: list[Token], known: int) -> list[Token] | None:
    """The events after the first `known` token ids; `None` where that is in the middle of one."""
    for place in range(len(tokens) + 1):
        if sum(len(ids) for ids, _ in tokens[:place]) == known:
            return tokens[place:]
    return None
