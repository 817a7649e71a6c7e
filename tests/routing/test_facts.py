"""Requests as policies, rules and the scorer see them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lumen.core.expression import FIELDS, condition
from lumen.routing.plan.facts import Facts
from lumen.wire.call import chat_call, completion_call, embedding_call
from lumen.wire.parse import parse_chat, parse_completion, parse_embedding

PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 40_000}}
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is a monad?"},
    {"role": "assistant", "content": "A monoid in …"},
    {"role": "user", "content": "Say it simply."},
]


def facts(body: dict[str, Any], key: str = "", **headers: str) -> Facts:
    raw = json.dumps({"model": "m", **body}).encode()
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return Facts(chat_call(parse_chat(raw)), len(raw), key, given)


def test_a_conversation_as_the_scorer_sees_it() -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    seen = facts(
        {"messages": TALK, "tools": [tool], "max_completion_tokens": 70, "response_format": {"type": "json_object"},
         "metadata": {"trace": "1234"}},
        x_lumen_tags="app=batch, team=blue",
    ).ask  # fmt: skip
    assert (seen.text, seen.system, seen.context) == ("Say it simply.", "Be brief.", "What is a monad?\nA monoid in …")
    assert (seen.turns, seen.tools, seen.images, seen.structured, seen.limit) == (2, 1, 0, True, 70)
    # Metadata can be new with each request; what the header says is the operator's.
    assert seen.tags == ("app=batch", "team=blue")


def test_pictures_count_and_their_data_is_no_text() -> None:
    seen = facts({"messages": [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, PICTURE]}]})
    assert (seen.images, seen.text) == (1, "What is it?")
    assert 1000 < seen.tokens < 1100


def test_only_the_end_of_a_long_conversation_is_read() -> None:
    long = [{"role": "user", "content": "a" * 5000}, {"role": "assistant", "content": "b" * 5000}] * 20
    assert len(facts({"messages": [*long, {"role": "user", "content": "now"}]}).ask.context) < 20_000


def test_conversations_are_told_apart_by_how_they_begin_and_whose_they_are() -> None:
    here = facts({"messages": TALK[:2]}, key="a")
    assert here.conversation == facts({"messages": TALK, "temperature": 0.1}, key="a").conversation
    assert here.conversation != facts({"messages": TALK[:2]}, key="b").conversation
    assert here.conversation != facts({"messages": TALK[1:2]}, key="a").conversation


@pytest.mark.parametrize("field", [*FIELDS, "tags", "headers"])
def test_every_field_of_a_condition_can_be_read(field: str) -> None:
    facts({"messages": TALK}).read(field)
    raw = b'{"model": "m", "prompt": "x"}'
    Facts(completion_call(parse_completion(raw)), len(raw), "", {}).read(field)
    raw = b'{"model": "m", "input": ["x"]}'
    Facts(embedding_call(parse_embedding(raw)), len(raw), "", {}).read(field)


@pytest.mark.parametrize(
    ("when", "holds"),
    [
        ("tags.app == 'batch' and turns > 1", True),
        ("tags.app == 'live'", False),
        ("headers['X-Team'] == 'blue'", True),
        ("key == 'ci' and contains(text, 'simply')", True),
        ("tokens < 200 and not stream and operation == 'chat/completions'", True),
        ("system == 'Be brief.'", True),
    ],
)
def test_conditions_over_requests(when: str, holds: bool) -> None:
    seen = facts({"messages": TALK, "metadata": {"app": "batch"}}, key="ci", x_team="blue")
    assert condition(when)(seen.read) is holds
