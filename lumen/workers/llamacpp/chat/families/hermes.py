"""Hermes and Qwen: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, several of them, text before."""

from __future__ import annotations

from typing import Any

from lumen.workers.llamacpp.chat.callgrammar import call_rule, escape, series, trigger
from lumen.workers.llamacpp.chat.callparser import CallParser, CallStyle
from lumen.workers.llamacpp.chat.calls import CallBlock
from lumen.workers.llamacpp.chat.families.base import CallIds, ToolChoice, Tools, choice_kind, chosen, tool_names
from lumen.workers.llamacpp.chat.gbnf import Grammar, Rules
from lumen.workers.llamacpp.chat.output import StreamParser

OPENER = "<tool_call>"
CLOSER = "</tool_call>"
STYLE = CallStyle(reader=lambda calls, _marked: CallBlock(calls), openers=(OPENER,), closer=CLOSER)


class Hermes:
    name = "hermes"
    priority = 50
    native = True
    special_texts = (OPENER, CLOSER)

    def matches(self, template: str) -> bool:
        return OPENER in template

    def adapt(
        self, messages: list[dict[str, Any]], tools: Tools, tool_choice: ToolChoice, parallel: bool, source: str
    ) -> list[dict[str, Any]]:
        return messages

    def parser(self, tools: Tools, tool_choice: ToolChoice, ids: CallIds, forced: bool) -> StreamParser:
        return CallParser(STYLE, tool_names(tools), ids)

    def grammar(self, tools: Tools, tool_choice: ToolChoice, parallel: bool) -> Grammar | None:
        functions = chosen(tools, tool_choice)
        kind = choice_kind(tool_choice)
        if kind == "none" or not functions:
            return None
        rules = Rules()
        call, sp = call_rule(rules, functions, "arguments"), rules.space()
        item = rules.add("item", f'"{OPENER}" {sp} {call} {sp} "{CLOSER}"')
        rules.add("root", series(rules, item, sp, parallel))
        if kind != "auto":
            return Grammar(rules.text())
        pattern = trigger(escape(OPENER), ("", "{", '"name"', ":", '"'))
        return Grammar(rules.text(), "root", True, (pattern,), (OPENER,))


FAMILY = Hermes()
