"""What of a conversation goes to a target of the OpenAI dialect: only what it takes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lumen.catalogue import vendor
from lumen.config import presets
from lumen.config.schema import Provider
from lumen.origins import _LOCAL
from lumen.providers.base import Capabilities, module
from lumen.wire.call import chat_call
from lumen.wire.parse import parse_chat

SIGNED = {"google": {"thought_signature": "sig"}}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CONVERSATION: list[dict[str, Any]] = [
    {"role": "user", "content": "go"},
    {"role": "assistant", "reasoning_content": "hm", "tool_calls": [{**CALL, "extra_content": SIGNED}]},
    {"role": "tool", "tool_call_id": "c1", "content": "done"},
    {"role": "assistant", "reasoning_content": "only thought"},
    {"role": "assistant", "content": "There.", "reasoning_content": "hm again"},
    {"role": "user", "content": "more"},
]


def sent(can: Capabilities, messages: list[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
    call = chat_call(parse_chat(json.dumps({"model": "m", "messages": messages or CONVERSATION}).encode()))
    before = json.dumps(call.request, default=repr)
    body = module("openai").make(can).encode(call, "m", None).body
    # Another target, that takes them, may be next.
    assert json.dumps(call.request, default=repr) == before
    found: list[dict[str, Any]] = json.loads(body)["messages"]
    return found


def test_a_target_gets_back_only_what_it_takes() -> None:
    plain = sent(Capabilities())
    assert [m["role"] for m in plain] == ["user", "assistant", "tool", "assistant", "user"]
    assert not any("reasoning_content" in m for m in plain)
    assert plain[1]["tool_calls"] == [CALL]
    assert plain[3] == {"role": "assistant", "content": "There."}


def test_thoughts_go_back_to_those_who_want_them() -> None:
    thinking = sent(Capabilities(reasoning_content=True))
    assert [m.get("reasoning_content") for m in thinking] == [None, "hm", None, "only thought", "hm again", None]
    assert thinking[1]["tool_calls"] == [CALL]


def test_signatures_go_back_to_those_who_want_them() -> None:
    signed = sent(Capabilities(extra_content=True))
    assert signed[1]["tool_calls"] == [{**CALL, "extra_content": SIGNED}]
    assert not any("reasoning_content" in m for m in signed)


def test_a_conversation_without_any_is_sent_as_it_is() -> None:
    calls: dict[str, Any] = {"role": "assistant", "tool_calls": [CALL]}
    messages = [CONVERSATION[0], calls, CONVERSATION[2]]
    assert sent(Capabilities(), messages) == messages


@pytest.mark.parametrize(
    ("name", "wants"), [("deepseek", True), ("moonshot", True), ("mistral", False), ("groq", False)]
)
def test_presets_say_who_wants_thoughts_back(name: str, wants: bool) -> None:
    assert vendor(name, Provider()).capabilities.reasoning_content is wants


def test_local_engines_get_thoughts_back() -> None:
    assert _LOCAL.reasoning_content
    for name in ("vllm", "sglang", "llama-server"):
        assert presets.find(name).capabilities.reasoning_content


def test_only_mistral_is_known_to_repeat_what_it_continues() -> None:
    assert vendor("mistral", Provider()).capabilities.prefill_echo
    assert not Capabilities().prefill_echo
