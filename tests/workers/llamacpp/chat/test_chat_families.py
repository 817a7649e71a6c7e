from __future__ import annotations

import json
import re
from typing import Any

import pytest

from lumen.workers.llamacpp.chat import families
from lumen.workers.llamacpp.chat.families.base import ToolFamily
from lumen.workers.llamacpp.chat.gbnf import Grammar
from lumen.workers.llamacpp.chat.output import OutputMachine
from lumen.workers.llamacpp.chat.schema import BadSchema

NAMES = families.names()
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"enum": ["c", "f"]}},
            "required": ["city"],
        },
    },
}
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}
PING = {"type": "function", "function": {"name": "ping"}}
TOOLS = [WEATHER, ADD, PING]
CITY = '{"city": "Zürich"}'
SUM = '{"a": 1, "b": 2}'

#: How each family writes one call, and two.
ONE = {
    "hermes": f'<tool_call>\n{{"name": "get_weather", "arguments": {CITY}}}\n</tool_call>',
    "llama3": f'{{"name": "get_weather", "parameters": {CITY}}}',
    "mistral": f'[TOOL_CALLS][{{"name": "get_weather", "arguments": {CITY}}}]',
    "mistral_args": f"[TOOL_CALLS]get_weather[ARGS]{CITY}",
    "generic": f'{{"name": "get_weather", "arguments": {CITY}}}',
}
TWO = {
    "hermes": ONE["hermes"] + f'\n<tool_call>\n{{"name": "add", "arguments": {SUM}}}\n</tool_call>',
    "llama3": ONE["llama3"] + f'; {{"name": "add", "parameters": {SUM}}}',
    "mistral": ONE["mistral"][:-1] + f', {{"name": "add", "arguments": {SUM}}}]',
    "mistral_args": ONE["mistral_args"] + f"[TOOL_CALLS]add[ARGS]{SUM}",
    "generic": '{"tool_calls": [' + ONE["generic"] + f', {{"name": "add", "arguments": {SUM}}}]}}',
}
#: One call each whose arguments break the schema, or whose tool was not offered.
WRONG = {
    name: [
        text.replace('"city": "Zürich"', '"city": 3'),
        text.replace('"city": "Zürich"', '"town": "x"'),
        text.replace(CITY, "{}"),
        text.replace("get_weather", "get_whether"),
    ]
    for name, text in ONE.items()
}


def read(
    family: ToolFamily, text: str, step: int = 0, tools: list[dict[str, Any]] = TOOLS
) -> tuple[str, list[Any], str]:
    """(content, [(id, name, arguments)], finish reason) of an answer, pushed whole (0) or in pieces of `step` bytes."""
    machine = OutputMachine(family.parser(tools, None, lambda index: f"call_{index}", False), [])
    raw = text.encode()
    pieces = [raw[at : at + step] for at in range(0, len(raw), step)] if step else [raw]
    deltas = [delta for piece in pieces for delta in machine.push(piece)]
    tail, reason = machine.finish("stop")
    content, calls = "", []
    for delta in [*deltas, *tail]:
        content += delta.content or ""
        if delta.tool is not None and delta.tool.id is not None:
            calls.append([delta.tool.id, delta.tool.name, ""])
        elif delta.tool is not None:
            calls[-1][2] += delta.tool.arguments or ""
    return content, calls, reason


def test_families_are_found_by_name() -> None:
    assert set(NAMES) == set(ONE)
    for name in NAMES:
        family = families.load(name)
        assert family.name == name
        assert "\n" not in family.name
    with pytest.raises(LookupError, match="nonesuch"):
        families.load("nonesuch")


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{{ '<tool_call>' }}", "hermes"),
        ("{{ '<|start_header_id|>' }}{{ 'parameters' }}", "llama3"),
        ("{{ '<|start_header_id|>' }}", "generic"),
        ("{{ '[TOOL_CALLS]' }}", "mistral"),
        ("{{ '[TOOL_CALLS]' }}{{ '[ARGS]' }}", "mistral_args"),
        ("{{ messages }}", "generic"),
    ],
)
def test_the_template_tells_the_family(template: str, name: str) -> None:
    assert families.detect(template).name == name


@pytest.mark.parametrize("step", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("name", NAMES)
def test_calls_are_read(name: str, step: int) -> None:
    family = families.load(name)
    assert read(family, ONE[name], step) == ("", [["call_0", "get_weather", CITY]], "tool_calls")
    both = [["call_0", "get_weather", CITY], ["call_1", "add", SUM]]
    assert read(family, TWO[name], step) == ("", both, "tool_calls")
    assert read(family, "\n" + TWO[name] + "\n", step) == ("", both, "tool_calls")


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("name", NAMES)
def test_text_is_text(name: str, step: int) -> None:
    family = families.load(name)
    for text in (
        "Hello",
        "\n\n Hello <b>[1]</b>\n",
        '{"city": "Paris"}',
        '[{"a": 1}, 2]',
        '{"name": "Alice", "age": 3}',
        "{",
        "[",
        "  ",
        "```json\n{}\n```",
        '{"name": "get_weather"',
        '{"tool_calls": []}',
        '{"tool_calls": "x"}',
        '{"tool_calls" : {',
        "a < b <tool [TOOL <|py",
    ):
        assert read(family, text, step) == (text, [], "stop"), text


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("name", ["hermes", "mistral", "mistral_args", "llama3"])
def test_text_before_and_after_calls(name: str, step: int) -> None:
    call = ("<|python_tag|>" if name == "llama3" else "") + ONE[name]
    content, calls, reason = read(families.load(name), f"Let me look.\n{call}\nDone.", step)
    assert (content, reason) == ("Let me look.\n\nDone.", "tool_calls")
    assert calls == [["call_0", "get_weather", CITY]]


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize(
    "body",
    [
        "{not json}",
        '{"name": "get_weather", "arguments": [1]}',
        '{"name": "get_weather", "arguments": "[1]"}',
        '{"name": "get_weather", "arguments": "not json"}',
        '{"name": 3, "arguments": {}}',
        '{"name": "nobody", "arguments": {}}',
        '{"arguments": {}}',
        '{"name": "add", "name": "add"}',
        "{}",
        "3",
    ],
)
def test_malformed_calls_are_content(body: str, step: int) -> None:
    text = f"<tool_call>\n{body}\n</tool_call> and more"
    assert read(families.load("hermes"), text, step) == (text, [], "stop")


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize(
    ("body", "arguments"),
    [
        ('{"arguments": {"a": 1}, "name": "add"}', '{"a": 1}'),
        ('{"name": "add", "parameters": {"a": 1}}', '{"a": 1}'),
        ('{"name": "add", "arguments": "{\\"a\\": \\"\\u00e9\\"}"}', '{"a": "é"}'),
        ('{"name": "add", "arguments": null}', "{}"),
        ('{"name": "add"}', "{}"),
        ('{"type": "function", "name": "add", "id": "x", "arguments": {}}', "{}"),
        (
            '{"name": "add", "arguments": { "a" : [ -1.5e3 , true , null , "}]" ] } }',
            '{ "a" : [ -1.5e3 , true , null , "}]" ] }',
        ),
        ('{"name": "add", "arguments": {"a": "line\nbreak\ttab"}}', '{"a": "line\\nbreak\\ttab"}'),
        ('[{"name": "add", "arguments": {}}]', "{}"),
    ],
)
def test_loose_forms_are_understood(body: str, arguments: str, step: int) -> None:
    content, calls, _ = read(families.load("hermes"), f"<tool_call>{body}</tool_call>", step)
    assert (content, calls) == ("", [["call_0", "add", arguments]])
    assert isinstance(json.loads(calls[0][2]), dict)


def test_arguments_stream_as_they_come() -> None:
    machine = OutputMachine(families.load("hermes").parser(TOOLS, None, str, False), [])
    assert machine.push(b'<tool_call>{"name": "add", "arguments": ') == []
    assert machine.opening
    (begin, first) = machine.push(b'{"a"')
    assert begin.tool is not None and begin.tool.name == "add" and begin.tool.arguments == ""
    assert first.tool is not None and first.tool.arguments == '{"a"'
    (second,) = machine.push(b": 12")
    assert second.tool is not None and second.tool.arguments == ": 12"
    assert second.tool.id is None and second.tool.name is None


def test_a_call_that_goes_wrong_halfway_loses_no_text() -> None:
    text = '<tool_call>{"name": "add", "arguments": {"a": oops}}</tool_call>'
    content, calls, _ = read(families.load("hermes"), text, 1)
    assert [call[1] for call in calls] == ["add"]
    assert calls[0][2] + content == text.split('"arguments": ')[1]


def test_what_precedes_a_call_is_bounded() -> None:
    text = '<tool_call>{"arguments": {"a": "' + "x" * 100_000
    machine = OutputMachine(families.load("hermes").parser(TOOLS, None, str, False), [])
    shown = sum(len(delta.content or "") for char in text for delta in machine.push(char.encode()))
    assert len(text) - shown <= 17_000
    deep = '<tool_call>{"name": "add", "arguments": ' + '{"a": ' * 500
    assert read(families.load("hermes"), deep)[1][0][1] == "add"


def test_python_tag_with_other_text_is_content() -> None:
    text = "<|python_tag|>print(1)"
    assert read(families.load("llama3"), text, 1) == (text, [], "stop")
    tagged = "<|python_tag|>" + TWO["llama3"]
    assert [call[1] for call in read(families.load("llama3"), tagged, 1)[1]] == ["get_weather", "add"]


@pytest.mark.parametrize("step", [0, 1])
def test_mistral_reads_what_its_versions_write(step: int) -> None:
    family = families.load("mistral_args")
    for text in (
        f"[TOOL_CALLS]add[CALL_ID]abc123DEF[ARGS]{SUM}",
        f"[TOOL_CALLS] add{SUM}",
        f"[TOOL_CALLS]add[ARGS] {SUM}",
    ):
        assert read(family, text, step) == ("", [["call_0", "add", SUM]], "tool_calls")
    for text in ("[TOOL_CALLS]nobody[ARGS]{}", "[TOOL_CALLS]add\nor", "[TOOL_CALLS]add[ARGS][1]", "[TOOL_CALLS]add"):
        assert read(family, text, step) == (text, [], "stop")
    cut = f"[TOOL_CALLS]add[ARGS]{SUM[:5]}"
    assert read(family, cut, step) == ("", [["call_0", "add", SUM[:5]]], "tool_calls")


def test_generic_reads_fenced_json() -> None:
    for fenced in (f"```json\n{ONE['generic']}\n```", f"```\n{ONE['generic']}\n```\n"):
        assert read(families.load("generic"), fenced, 1) == ("", [["call_0", "get_weather", CITY]], "tool_calls")


def grammar_of(name: str, choice: Any, parallel: bool = True, fmt: Any = None) -> Grammar:
    grammar = families.load(name).grammar(TOOLS, choice, parallel, fmt)
    assert grammar is not None
    return grammar


@pytest.mark.parametrize("name", NAMES)
def test_required_holds_the_answer_to_calls(engine: Any, name: str) -> None:
    grammar = grammar_of(name, "required")
    assert not grammar.lazy
    assert engine.matches(grammar, ONE[name])
    assert engine.matches(grammar, TWO[name])
    assert not engine.prefix(grammar, "Hello")
    assert not engine.matches(grammar, "")
    for text in WRONG[name]:
        assert not engine.matches(grammar, text), text


@pytest.mark.parametrize("name", NAMES)
def test_a_named_tool_is_the_only_one(engine: Any, name: str) -> None:
    grammar = grammar_of(name, {"type": "function", "function": {"name": "get_weather"}})
    assert engine.matches(grammar, ONE[name])
    assert not engine.matches(grammar, ONE[name].replace("get_weather", "add").replace(CITY, SUM))


@pytest.mark.parametrize("name", NAMES)
def test_without_parallel_calls_there_is_one(engine: Any, name: str) -> None:
    grammar = grammar_of(name, "required", parallel=False)
    assert engine.matches(grammar, ONE[name])
    assert not engine.matches(grammar, TWO[name])


@pytest.mark.parametrize("name", NAMES)
def test_a_tool_without_parameters_takes_none(engine: Any, name: str) -> None:
    grammar = grammar_of(name, "required")
    assert engine.matches(grammar, ONE[name].replace("get_weather", "ping").replace(CITY, "{}"))
    assert not engine.matches(grammar, ONE[name].replace("get_weather", "ping"))


@pytest.mark.parametrize("name", NAMES)
def test_none_and_unknown_tools_have_no_grammar(name: str) -> None:
    family = families.load(name)
    assert family.grammar(TOOLS, "none", True) is None
    assert family.grammar([], "auto", True) is None


@pytest.mark.parametrize("name", NAMES)
def test_auto_with_a_response_format_is_either(engine: Any, name: str) -> None:
    fmt = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"properties": {"v": {"type": "integer"}}}}}
    grammar = grammar_of(name, "auto", fmt=fmt)
    assert not grammar.lazy
    assert engine.matches(grammar, ONE[name])
    assert engine.matches(grammar, '{"v": 1}')
    assert not engine.matches(grammar, "text")


@pytest.mark.parametrize("name", NAMES)
def test_auto_is_lazy_and_its_triggers_only_match_what_the_grammar_takes(engine: Any, name: str) -> None:
    grammar = grammar_of(name, "auto")
    assert grammar.lazy
    patterns = [re.compile(pattern) for pattern in grammar.trigger_patterns]
    for text in (ONE[name], TWO[name]):
        fired = []
        for end in range(len(text) + 1):
            for pattern in patterns:
                found = pattern.search(text[:end])
                if found is not None:
                    fired.append(end)
                    assert engine.prefix(grammar, text[:end][found.start(1) :])
        assert fired, "the call is never noticed"
        arguments = text.index(CITY)
        assert min(fired) <= arguments
    for text in ("Hello", '{"city": "Paris"}', '{"name": "Alice", "age": 3}', "<tool [TOOL <|py", "[1, 2]"):
        assert not any(pattern.search(text[:end]) for end in range(len(text) + 1) for pattern in patterns), text


@pytest.mark.parametrize("name", NAMES)
def test_a_trigger_refuses_what_the_grammar_would(engine: Any, name: str) -> None:
    """Whatever a token may carry behind an opener: a trigger that fires must leave an acceptable text."""
    grammar = grammar_of(name, "auto")
    patterns = [re.compile(pattern) for pattern in grammar.trigger_patterns]
    heads = [ONE[name][:end] for end in range(1, len(ONE[name]))]
    for head in heads:
        for tail in ("`", "\n\n\n", "   ", "x", '"', "{", ",", ":", "\n\t", "é"):
            text = head + tail
            for pattern in patterns:
                found = pattern.search(text)
                if found is not None:
                    assert engine.prefix(grammar, text[found.start(1) :]), text


@pytest.mark.parametrize("name", NAMES)
def test_the_real_lazy_sampler_takes_the_patterns(engine: Any, name: str) -> None:
    import ctypes

    import llama_cpp

    grammar = grammar_of(name, "auto")
    count = len(grammar.trigger_patterns)
    patterns = (ctypes.c_char_p * count)(*(pattern.encode() for pattern in grammar.trigger_patterns))
    for text, bound in ((ONE[name], True), ("Hello there", False)):
        sampler = llama_cpp.llama_sampler_init_grammar_lazy_patterns(
            engine.vocab, grammar.gbnf.encode(), grammar.root.encode(), patterns, count, None, 0
        )
        assert sampler
        tokens = engine.spell(text, False)
        assert engine.walk(sampler, tokens) == len(tokens)
        assert engine.allows(sampler, ord("~")) is not bound
        llama_cpp.llama_sampler_free(sampler)


@pytest.mark.parametrize("name", NAMES)
def test_a_bad_schema_is_named(name: str) -> None:
    bad = {"type": "function", "function": {"name": "x", "parameters": {"$ref": "http://x"}}}
    with pytest.raises(BadSchema) as caught:
        families.load(name).grammar([bad], "required", True)
    assert caught.value.param == "function.parameters"


@pytest.mark.parametrize("name", NAMES)
def test_tools_that_are_too_much_together_are_refused(name: str) -> None:
    schemas = [
        {"type": "object", "properties": {f"{tool}.{n} {'x' * 100}": {"type": "string"} for n in range(200)}}
        for tool in range(60)
    ]
    tools = [{"type": "function", "function": {"name": f"t{n}", "parameters": s}} for n, s in enumerate(schemas)]
    with pytest.raises(BadSchema, match="larger than"):
        families.load(name).grammar(tools, "auto", True)


@pytest.mark.parametrize("name", NAMES)
def test_strange_names_are_quoted(engine: Any, name: str) -> None:
    tool = {"type": "function", "function": {"name": 'a."b\\<é>'}}
    for choice in ("required", "auto"):
        grammar = families.load(name).grammar([tool], choice, True)
        assert grammar is not None
        assert engine.compile(grammar)
        for pattern in grammar.trigger_patterns:
            re.compile(pattern)


@pytest.mark.parametrize("opened", [True, False])
def test_reasoning_stays_free_before_a_bound_answer(engine: Any, opened: bool) -> None:
    grammar = grammar_of("hermes", "required").after_thinking(opened, "<think>", "</think>")
    thought = "what </thin <</think is\n\n{best}?</think>\n\n" + ONE["hermes"]
    assert engine.matches(grammar, thought if opened else "<think>" + thought)
    assert engine.matches(grammar, ONE["hermes"]) is not opened
    assert not engine.prefix(grammar, ("" if opened else "<think>") + "x</think>Hello")


def test_mistral_ids_become_nine_characters_and_stay_alike() -> None:
    family = families.load("mistral")
    messages = [
        {"role": "assistant", "tool_calls": [{"id": "call_1", "function": {"name": "add", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "3"},
        {"role": "tool", "tool_call_id": "abcdefghi", "content": "3"},
    ]
    before = json.dumps(messages)
    adapted = family.adapt(messages, TOOLS, None, True, "")
    made = adapted[0]["tool_calls"][0]["id"]
    assert re.fullmatch("[a-zA-Z0-9]{9}", made)
    assert adapted[1]["tool_call_id"] == made
    assert adapted[2]["tool_call_id"] == "abcdefghi"
    assert json.dumps(messages) == before


def test_generic_describes_tools_and_history_in_text() -> None:
    family = families.load("generic")
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": SUM}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "1+2?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "3"}]},
    ]
    adapted = family.adapt(messages, TOOLS, None, True, "")
    assert [message["role"] for message in adapted] == ["system", "user", "assistant", "user"]
    assert adapted[0]["content"].startswith("Be brief.\n\n") and '"get_weather"' in adapted[0]["content"]
    assert adapted[2] == {"role": "assistant", "content": '{"name": "add", "arguments": {"a": 1, "b": 2}}'}
    assert adapted[3]["content"] == "Result of call c1: 3"
    only = family.adapt(messages[1:2], TOOLS, {"type": "function", "function": {"name": "add"}}, False, "")
    assert only[0]["role"] == "system" and "get_weather" not in only[0]["content"]
    assert "You must call" in only[0]["content"] and "tool_calls" not in only[0]["content"]
    assert family.adapt(messages[:2], TOOLS, "none", True, "") == messages[:2]


def test_llama_splits_several_calls_where_the_template_demands_it() -> None:
    calls = [{"id": f"c{n}", "function": {"name": "add", "arguments": SUM}} for n in (1, 2)]
    messages = [
        {"role": "assistant", "content": "both", "tool_calls": calls},
        *({"role": "tool", "tool_call_id": f"c{n}", "content": str(n)} for n in (1, 2)),
    ]
    family = families.load("llama3")
    assert family.adapt(messages, TOOLS, None, True, "no demand") == messages
    split = family.adapt(messages, TOOLS, None, True, "only supports single tool-calls at once!")
    assert [m["role"] for m in split] == ["assistant", "tool", "assistant", "tool"]
    assert [len(m["tool_calls"]) for m in split if m["role"] == "assistant"] == [1, 1]
    assert [m["tool_call_id"] for m in split if m["role"] == "tool"] == ["c1", "c2"]
