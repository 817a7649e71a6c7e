"""Llama 3.1 and later: the answer is bare JSON, `{"name": …, "parameters": {…}}`, perhaps behind `<|python_tag|>`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lumen.workers.llamacpp.chat.callgrammar import BEGINNING, BLANKS, call_rule, escape, named_opener, series, trigger
from lumen.workers.llamacpp.chat.callparser import CallStyle
from lumen.workers.llamacpp.chat.calls import CallBlock
from lumen.workers.llamacpp.chat.families.base import MarkedFamily, Messages
from lumen.workers.llamacpp.chat.gbnf import Rules
from lumen.workers.llamacpp.chat.tools import ToolChoice, Tools

PYTHON_TAG = "<|python_tag|>"


class Llama3(MarkedFamily):
    name = "llama3"
    priority = 40
    special_texts = (PYTHON_TAG,)
    style = CallStyle(
        reader=lambda calls, marked: CallBlock(calls, strict=not marked),
        openers=(PYTHON_TAG,),
        bare="{[",
        separators=";,",
    )

    def matches(self, template: str) -> bool:
        return "<|start_header_id|>" in template and ("parameters" in template or PYTHON_TAG in template)

    def adapt(self, messages: Messages, tools: Tools, tool_choice: ToolChoice, parallel: bool, source: str) -> Messages:
        if "single tool-calls" not in source:
            return messages
        return _one_call_a_message(messages)

    def body(self, rules: Rules, functions: Sequence[dict[str, Any]], parallel: bool) -> str:
        call, sp = call_rule(rules, functions, "parameters"), rules.space()
        calls = series(rules, call, f'{sp} ";" {sp}', parallel)
        return f'("{PYTHON_TAG}" {sp})? {calls}'

    def triggers(self, functions: Sequence[dict[str, Any]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        head = (",", '"parameters"', ":", "{")
        named = named_opener(functions)
        bare = trigger(named, head, BEGINNING)
        tagged = trigger(escape(PYTHON_TAG) + BLANKS + named, head)
        return (bare, tagged), (PYTHON_TAG,)


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
