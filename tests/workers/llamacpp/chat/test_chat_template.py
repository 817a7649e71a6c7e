from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from lumen.workers.llamacpp.chat.output import Delta, OutputMachine
from lumen.workers.llamacpp.chat.template import CHATML, ChatTemplate, TemplateError

TEMPLATES = Path(__file__).parent / "templates"
HERMES = (TEMPLATES / "hermes.jinja").read_text()
LLAMA3 = (TEMPLATES / "llama3.jinja").read_text()
MISTRAL = (TEMPLATES / "mistral.jinja").read_text()
NO_SYSTEM = (TEMPLATES / "no_system.jinja").read_text()
PARTS = "{% for m in messages %}{{ m.role }}:{% for part in m.content %}{{ part.text }}{% endfor %};{% endfor %}"
STRING_ARGUMENTS = (TEMPLATES / "string_arguments.jinja").read_text()
THINKING = (
    CHATML.replace("assistant\\n'", "assistant\\n<think>\\n'") + "{# </think> #}{{- '' if true else '</think>' }}"
)

TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}]
CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": "é<b>", "n": 1}'}}
TALK: list[dict[str, Any]] = [
    {"role": "user", "content": "1+2?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "3"}]},
]


def make(source: str, now: Any = None) -> ChatTemplate:
    return ChatTemplate(source, "<s>", "</s>", now)


def test_chatml() -> None:
    template = make(CHATML)
    assert template.family.name == "generic"
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    asked = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}]
    assert template.render(asked) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    )
    assert template.render(asked, add_generation_prompt=False).endswith("<|im_end|>\n")


def test_hermes_calls_and_results() -> None:
    template = make(HERMES)
    assert template.family.name == "hermes"
    text = template.render(TALK, TOOLS)
    assert text.startswith("<|im_start|>system\nTools:\n" + json.dumps(TOOLS[0]) + "\n<|im_end|>")
    assert '<tool_call>\n{"name": "add", "arguments": {"a": "é<b>", "n": 1}}\n</tool_call>' in text
    assert "<tool_response>add: 3</tool_response>" in text
    assert text.endswith("<|im_start|>assistant\n")


def test_tools_are_hidden_where_none_may_be_called() -> None:
    template = make(HERMES)
    assert template.render(TALK[:1], TOOLS, "none") == template.render(TALK[:1])
    assert template.parser("", TOOLS, "none", str) is None
    assert template.grammar("", TOOLS, "none") is None
    assert template.parser("", None, None, str) is None


def test_llama3_date_and_single_calls() -> None:
    plain = make(LLAMA3).render([{"role": "user", "content": " hi "}])
    assert plain.startswith("<s><|start_header_id|>system<|end_header_id|>\n\nToday: 26 Jul 2024\n")
    assert "\n\nhi<|eot_id|>" in plain
    dated = make(LLAMA3, now=lambda: datetime(2031, 2, 3)).render([{"role": "user", "content": "hi"}])
    assert "03 Feb 2031" in dated
    calls = [CALL, {**CALL, "id": "call_2"}]
    talk = [TALK[0], {"role": "assistant", "tool_calls": calls}, TALK[2], {**TALK[2], "tool_call_id": "call_2"}]
    text = make(LLAMA3).render(talk, TOOLS)
    assert text.count('{"name": "add", "parameters": {"a": "é<b>", "n": 1}}<|eot_id|>') == 2


def test_mistral_ids_and_role_order() -> None:
    template = make(MISTRAL)
    assert template.family.name == "mistral"
    text = template.render(TALK, TOOLS)
    assert '[TOOL_CALLS] [{"name": "add", "arguments": {"a": "é<b>", "n": 1}, "id": "' in text
    call_id = text.split('"id": "')[1][:9]
    assert f'"call_id": "{call_id}"' in text
    with pytest.raises(TemplateError, match="refuses this conversation: roles must alternate"):
        template.render([TALK[0], TALK[0]])
    with pytest.raises(TemplateError, match="only user and assistant may speak"):
        template.render(
            [
                {"role": "system", "content": "a"},
                TALK[0],
                {"role": "assistant", "content": "b"},
                {"role": "user", "content": "c"},
                {"role": "system", "content": "d"},
            ]
        )


def test_no_system_role() -> None:
    template = make(NO_SYSTEM)
    with pytest.raises(TemplateError, match="there is no system role"):
        template.render([{"role": "system", "content": "x"}, *TALK[:1]])
    text = template.render(TALK[:1], TOOLS)
    assert text.startswith("<start>user\nYou can call") and text.rstrip().endswith("1+2?<end>")


def test_generic_tools_reach_the_prompt_of_any_template() -> None:
    text = make(CHATML).render(TALK, TOOLS)
    assert '{"name": "add", "parameters"' in text
    assert '<|im_start|>assistant\n{"name": "add", "arguments": {"a": "é<b>", "n": 1}}<|im_end|>' in text
    assert "<|im_start|>user\nResult of call call_1: 3<|im_end|>" in text


def test_templates_that_want_parts_get_parts() -> None:
    assert make(PARTS).render([{"role": "user", "content": "abc"}]) == "user:abc;"


def test_templates_that_want_text_arguments_get_text() -> None:
    arguments = CALL["function"]["arguments"]  # type: ignore[index]
    assert make(STRING_ARGUMENTS).render(TALK) == f'1+2?<tool_call>{{"arguments": {arguments}}}3'
    as_object = {**CALL, "function": {"name": "add", "arguments": {"a": 1}}}
    talk = [TALK[0], {**TALK[1], "tool_calls": [as_object]}]
    assert '{"arguments": {"a": 1}}' in make(STRING_ARGUMENTS).render(talk)


def test_arguments_that_were_cut_short_are_passed_as_they_are() -> None:
    cut = {**CALL, "function": {"name": "add", "arguments": '{"a": '}}
    assert json.dumps('{"a": ') in make(HERMES).render([TALK[0], {**TALK[1], "tool_calls": [cut]}])


@pytest.mark.parametrize("source", [CHATML, HERMES, LLAMA3, MISTRAL])
@pytest.mark.parametrize("content", ["It is ", "It is", [{"type": "text", "text": "It is "}], "x\n```\n"])
def test_continue_final_message(source: str, content: Any) -> None:
    template = make(source)
    talk = [*TALK[:1], {"role": "assistant", "content": content}]
    text = template.render(talk, add_generation_prompt=False, continue_final_message=True)
    assert text.endswith(content if isinstance(content, str) else "It is ")
    whole = template.render(talk, add_generation_prompt=False)
    assert whole.startswith(text.rstrip())


def test_continue_final_message_refusals() -> None:
    template = make(CHATML)
    with pytest.raises(TemplateError, match="exclude each other"):
        template.render(TALK, continue_final_message=True)
    for talk in (TALK, TALK[:1], TALK[:2], []):
        with pytest.raises(TemplateError, match="role assistant"):
            template.render(talk, add_generation_prompt=False, continue_final_message=True)
    with pytest.raises(TemplateError, match="does not show"):
        make("{{ messages[0].content }}").render(
            [*TALK[:1], {"role": "assistant", "content": "x"}], add_generation_prompt=False, continue_final_message=True
        )


def test_images_are_refused() -> None:
    picture = [{"type": "image_url", "image_url": {"url": "x"}}]
    with pytest.raises(TemplateError, match=r"messages\[0\].content\[0\] is of type image_url"):
        make(CHATML).render([{"role": "user", "content": picture}])
    with pytest.raises(TemplateError, match=r"messages\[0\].content"):
        make(CHATML).render([{"role": "user", "content": 3}])


def test_rendering_leaves_its_arguments_alone() -> None:
    for source in (CHATML, HERMES, LLAMA3, MISTRAL, NO_SYSTEM):
        before = json.dumps([TALK, TOOLS])
        make(source).render(TALK, TOOLS)
        assert json.dumps([TALK, TOOLS]) == before


def test_the_same_conversation_renders_the_same() -> None:
    template = make(HERMES)
    assert template.render(TALK, TOOLS) == template.render(TALK, TOOLS) == make(HERMES).render(TALK, TOOLS)


def test_reasoning_that_the_prompt_opened() -> None:
    template = make(THINKING)
    assert template.reasoning_marks == ("<think>", "</think>")
    prompt = template.render(TALK[:1])
    machine = OutputMachine(template.parser(prompt, None, None, str), [])
    deltas = [delta for piece in (b"so, ", b"three\n</th", b"ink>\n\n3") for delta in machine.push(piece)]
    assert deltas == [Delta(reasoning="so, "), Delta(reasoning="three"), Delta(content="3")]
    machine = OutputMachine(template.parser("no mark", None, None, str), [])
    assert machine.push(b"<think>a</think>b") == [Delta(reasoning="a"), Delta(content="b")]
    assert machine.finish("stop") == ([], "stop")


def test_reasoning_and_grammar(engine: Any) -> None:
    template = make(THINKING)
    prompt = template.render(TALK[:1])
    fmt = {"type": "json_object"}
    grammar = template.grammar(prompt, None, None, response_format=fmt)
    assert grammar is not None
    assert engine.matches(grammar, 'well…</think>\n\n{"a": 1}')
    assert not engine.matches(grammar, '{"a": 1}')
    closed = template.grammar(prompt + "\n</think>\n\n", None, None, response_format=fmt)
    assert closed is not None
    assert engine.matches(closed, '{"a": 1}')
    assert not engine.prefix(closed, "well")
    assert template.grammar(prompt, None, None) is None
    forced = template.grammar(prompt, TOOLS, "required", True, fmt)
    assert forced is not None
    assert engine.matches(forced, 'hm</think>{"name": "add", "arguments": {}}')
    assert not engine.matches(forced, 'hm</think>{"a": 1}')


@pytest.mark.parametrize(
    "source", ["{% if %}", "{{ x", "{% include 'x' %}{{", "{{ x|nonesuch }}", "x" * 600_000, "{{" + "(" * 500]
)
def test_sources_that_do_not_compile(source: str) -> None:
    with pytest.raises(TemplateError):
        make(source)
