"""What a target is sent to go on with an answer, and what the decoder tells about the parts of one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lumen.core.resume import Rung
from lumen.providers.base import Capabilities, module
from lumen.wire.anchor import anchor
from lumen.wire.call import Call, Operation, completion_call, embedding_call
from lumen.wire.continued import ANCHOR_TOKENS, Prefill, asked, continued
from lumen.wire.parse import parse_chat, parse_completion, parse_embedding
from lumen.wire.requests import ChatRequest
from tests.wire.splicing import call, choice, chunk, read

PARTIAL = "Once upon a time there was a very small gateway that never broke, and \n"
SENT = PARTIAL.rstrip()


def request(**fields: Any) -> ChatRequest:
    asked_for = call(**fields).request
    assert isinstance(asked_for, ChatRequest)
    return asked_for


def sent(made: ChatRequest, *, local: bool = False) -> dict[str, Any]:
    dialect = module("openai").make(Capabilities(local=local))
    body: dict[str, Any] = json.loads(dialect.encode(Call(Operation.CHAT, made, True, False, 1), "m", None).body)
    return body


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize(
    ("prefill", "marks", "flags"),
    [
        ("native", {}, set()),
        ("prefix", {"prefix": True}, set()),
        ("continue", {}, {"continue_final_message", "add_generation_prompt"}),
    ],
)
def test_prefill(prefill: Prefill, marks: dict[str, Any], flags: set[str], local: bool) -> None:
    body = sent(continued(request(), Rung.PREFILL, PARTIAL, 5, prefill), local=local)
    assert body["messages"] == [{"role": "user", "content": "hi"}, {"role": "assistant", "content": SENT} | marks]
    assert {"continue_final_message", "add_generation_prompt"} & set(body) == flags
    if flags:
        assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)


def test_anchored() -> None:
    body = sent(continued(request(), Rung.ANCHORED, PARTIAL, 5, "prefix"))
    _, partial, turn = body["messages"]
    assert partial == {"role": "assistant", "content": SENT}
    assert turn["role"] == "user" and turn["content"].endswith("\n\n" + anchor(SENT))
    assert not {"continue_final_message", "add_generation_prompt"} & set(body)


@pytest.mark.parametrize("rung", [Rung.TOKEN_EXACT, Rung.REPLAY_EXACT, Rung.RESTART])
def test_other_rungs_ask_as_the_client_did(rung: Rung) -> None:
    original = request()
    assert continued(original, rung, PARTIAL, 5, "native") is original


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize(("limit", "used", "left"), [(100, 30, 70), (100, 100, 1), (100, 130, 1)])
def test_the_limit_is_what_is_left(field: str, limit: int, used: int, left: int) -> None:
    made = continued(request(**{field: limit}), Rung.PREFILL, PARTIAL, used, "native")
    assert getattr(made, field) == left
    made = continued(request(**{field: limit}), Rung.ANCHORED, PARTIAL, used, "native")
    assert getattr(made, field) == left + ANCHOR_TOKENS
    assert {made.max_tokens, made.max_completion_tokens} == {left + ANCHOR_TOKENS, None}


def test_the_original_request_stays_as_it_was() -> None:
    original = request(max_tokens=9, messages=[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
    before = sent(original)
    for rung in (Rung.PREFILL, Rung.ANCHORED):
        for prefill in ("native", "prefix", "continue"):
            continued(original, rung, PARTIAL, 5, prefill)
    assert sent(original) == before


def test_everything_else_is_kept() -> None:
    original = request(temperature=0.3, stop=["x"], tools=[{"type": "function", "function": {"name": "f"}}], user="u")
    before, after = sent(original), sent(continued(original, Rung.PREFILL, PARTIAL, 5, "native"))
    del before["messages"], after["messages"]
    assert before == after


@pytest.mark.parametrize("content", ["It goes: ", [{"type": "text", "text": "It goes: "}]])
def test_a_beginning_by_the_client_is_part_of_the_answer(content: Any) -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": content}]
    made = sent(continued(request(messages=messages), Rung.PREFILL, PARTIAL, 5, "native"))
    whole = "It goes: " + SENT if isinstance(content, str) else [*content, {"type": "text", "text": SENT}]
    assert made["messages"][1:] == [{"role": "assistant", "content": whole}]
    # Where it would not have been continued, it was a turn of its own.
    made = sent(continued(request(messages=messages), Rung.ANCHORED, PARTIAL, 5, "native"))
    assert [m["role"] for m in made["messages"]] == ["user", "assistant", "assistant", "user"]


def test_clients_cannot_set_what_lumen_writes() -> None:
    body = {
        "model": "m",
        "messages": [{"role": "assistant", "content": "a", "prefix": True}],
        "add_generation_prompt": True,
    }
    assert not {"prefix", "add_generation_prompt"} & set(str(sent(parse_chat(json.dumps(body).encode()))).split("'"))
    flagged = sent(request(continue_final_message=True))
    assert "continue_final_message" not in flagged


def test_facts_of_a_call() -> None:
    facts = asked(call(temperature=0, seed=4))
    assert (facts.chat, facts.stream, facts.answers, facts.json) == (True, True, 1, False)
    assert (facts.temperature, facts.seed) == (0, 4)
    assert asked(call(response_format={"type": "json_object"})).json
    assert not asked(call(response_format={"type": "text"})).json
    assert not asked(completion_call(parse_completion(b'{"model":"m","prompt":"a"}'))).chat
    assert not asked(embedding_call(parse_embedding(b'{"model":"m","input":"a"}'))).stream


def test_events_tell_their_parts() -> None:
    deltas: list[tuple[dict[str, Any], tuple[bool, str | None, bool, bool]]] = [
        ({"role": "assistant", "content": ""}, (False, None, False, False)),
        ({"content": "a"}, (True, "a", False, False)),
        ({"tool_calls": [{"index": 0}]}, (True, None, True, False)),
        ({"refusal": "no"}, (True, None, True, False)),
        ({"reasoning": "hm"}, (True, None, False, True)),
        ({"reasoning_content": "hm", "content": "a"}, (True, "a", False, True)),
        ({}, (False, None, False, False)),
    ]
    events = read(b"".join(chunk(choice(delta)) for delta, _ in deltas))
    assert [(e.content, e.text, e.actionable, e.reasoning) for e in events] == [told for _, told in deltas]
    assert [e.identity for e in events] == [("b", 2)] + [None] * (len(deltas) - 1)


def test_text_is_told_of_choice_0_alone() -> None:
    both = chunk(choice({"content": "a"}), choice({"content": "b"}, index=1))
    events = read(both + chunk(choice({"content": "b"}, index=1)) + chunk(choice({"content": "a"})), n=2)
    assert [(e.content, e.text) for e in events] == [(True, None), (True, None), (True, "a")]


@pytest.mark.parametrize(("id", "identity"), [(None, None), (7, None), ("", ("", 2))])
def test_servers_without_an_id(id: Any, identity: tuple[str, int] | None) -> None:
    (event,) = read(chunk(choice({"content": "a"}), id=id))
    assert event.identity == identity


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({}, False),
        ({"temperature": 0.7, "top_p": 0.9, "seed": 1, "logit_bias": {"3": 1}, "min_p": 0.1}, False),
        ({"presence_penalty": 0, "frequency_penalty": 0, "repeat_penalty": 1, "stop": []}, False),
        ({"response_format": {"type": "text"}}, False),
        ({"presence_penalty": 0.1}, True),
        ({"frequency_penalty": -0.1}, True),
        ({"repeat_penalty": 1.1}, True),
        ({"repetition_penalty": 1.1}, True),
        ({"stop": "x"}, True),
        ({"stop": ["x"]}, True),
        ({"logprobs": True}, True),
        ({"response_format": {"type": "json_object"}}, True),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, True),
        ({"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "none"}, False),
    ],
)
def test_what_hangs_on_more_than_the_tokens_so_far(fields: dict[str, Any], state: bool) -> None:
    assert asked(call(**fields)).state is state
