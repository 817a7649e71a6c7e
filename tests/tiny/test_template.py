"""The chat template, rendered in a sandbox."""

from __future__ import annotations

import pytest
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tools.tiny_model import template

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


def test_plain_turns() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Bye"},
    ]
    assert template.render(messages, add_generation_prompt=True) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"
    )


def test_content_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    assert "user\none two<|im_end|>" in template.render([{"role": "user", "content": parts}])


def test_tools_stand_in_the_system_turn() -> None:
    text = template.render([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}], [TOOL])
    assert text.startswith("<|im_start|>system\nBe brief.\n\nYou can call these tools:\n<tools>\n{")
    assert text.count("<|im_start|>system") == 1


@pytest.mark.parametrize("arguments", ['{"a": "x"}', {"a": "x"}])
def test_calls_and_results(arguments: object) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    messages = [
        {"role": "user", "content": "Do"},
        {"role": "assistant", "content": None, "tool_calls": [call, call]},
        {"role": "tool", "tool_call_id": "1", "content": "5"},
        {"role": "tool", "tool_call_id": "1", "content": "6"},
    ]
    block = '<tool_call>\n{"name": "f", "arguments": {"a": "x"}}\n</tool_call>'
    assert template.render(messages).endswith(
        f"<|im_start|>assistant\n{block}\n{block}<|im_end|>\n"
        "<|im_start|>user\n<tool_response>\n5\n</tool_response>\n<tool_response>\n6\n</tool_response><|im_end|>\n"
    )


def test_messages_cannot_smuggle_template_code() -> None:
    assert "{{ 7 * 7 }}" in template.render([{"role": "user", "content": "{{ 7 * 7 }}"}])


def test_the_sandbox_refuses_python_internals() -> None:
    with pytest.raises(SecurityError):
        ImmutableSandboxedEnvironment().from_string("{{ ''.__class__.__mro__ }}").render()
