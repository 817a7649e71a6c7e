"""Llama 3.1 and later: the answer is bare JSON, `{"name": …, "parameters": {…}}`, or the same behind `<|python_tag|>`."""

from __future__ import annotations

from typing import Any

from lumen.workers.llamacpp.chat.callgrammar import call_rule, named_opener, series, trigger
from lumen.workers.llamacpp.chat.callparser import CallParser, CallStyle
from lumen.workers.llamacpp.chat.calls import CallBlock
from lumen.workers.llamacpp.chat.families.base import CallIds, ToolChoice, Tools, choice_kind, chosen, tool_names
from lumen.workers.llamacpp.chat.gbnf import Grammar, Rules
from lumen.workers.llamacpp.chat.output import StreamParser

PYTHON_TAG = "<|python_tag|>"
STYLE = CallStyle(
    reader=lambda calls, marked: CallBlock(calls, strict=not marked),
    openers=(PYTHON_TAG,),
    bare="{[",
    separators=";,",
)


class Llama3:
    name = "llama3"
    priority = 40
    native = True
    special_texts = (PYTHON_TAG,)

    def matches(self, template: str) -> bool:
        return "<|start_header_id|>" in template and ("parameters" in template or PYTHON_TAG in template)

    def adapt(
        self, messages: list[dict[str, Any]], tools: Tools, tool_choice: ToolChoice, parallel: bool, source: str
    ) -> list[dict[str, Any]]:
        if "single tool-calls" not in source:
            return messages
        return _one_call_a_message(messages)

    def parser(self, tools: Tools, tool_choice: ToolChoice, ids: CallIds, forced: bool) -> StreamParser:
        return CallParser(STYLE, tool_names(tools), ids)

    def grammar(self, tools: Tools, tool_choice: ToolChoice, parallel: bool) -> Grammar | None:
        functions = chosen(tools, tool_choice)
        kind = choice_kind(tool_choice)
        if kind == "none" or not functions:
            return None
        rules = Rules()
        call, sp = call_rule(rules, functions, "parameters"), rules.space()
        calls = series(rules, call, f'{sp} ";" {sp}', parallel)
        rules.add("root", f'("{PYTHON_TAG}" {sp})? {calls}')
        if kind != "auto":
            return Grammar(rules.text())
        head = ("", ",", '"parameters"', ":", "{")
        patterns = tuple(
            trigger(opener + named_opener(functions), head, before)
            for before, opener in ((r"^\s*", ""), ("", r"<\|python_tag\|>(?: |\n\n?[ \t]{0,20})?"))
        )
        return Grammar(rules.text(), "root", True, patterns, (PYTHON_TAG,))


def _one_call_a_message(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Templates of this family refuse several calls in one message: each gets a message of its own, its result (found
    by id) right behind it."""
    out: list[dict[str, Any]] = []
    results: dict[str, dict[str, Any]] = {}
    for message in messages:
        if message.get("role") == "tool" and isinstance(message.get("tool_call_id"), str):
            results.setdefault(message["tool_call_id"], message)
    moved: set[int] = set()
    for message in messages:
        calls = message.get("tool_calls")
        if not isinstance(calls, list) or len(calls) < 2:
            if id(message) not in moved:
                out.append(message)
            continue
        for number, call in enumerate(calls):
            single = {**message, "tool_calls": [call]}
            out.append(single if number == 0 else {**single, "content": ""})
            result = results.get(call.get("id", "")) if isinstance(call, dict) else None
            if result is not None and id(result) not in moved:
                moved.add(id(result))
                out.append(result)
    return out


FAMILY = Llama3()
