"""Hermes and Qwen: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, several of them, text before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lumen.workers.llamacpp.chat.callgrammar import call_rule, escape, series, trigger
from lumen.workers.llamacpp.chat.callparser import CallStyle
from lumen.workers.llamacpp.chat.calls import CallBlock
from lumen.workers.llamacpp.chat.families.base import MarkedFamily
from lumen.workers.llamacpp.chat.gbnf import Rules

OPENER = "<tool_call>"
CLOSER = "</tool_call>"


class Hermes(MarkedFamily):
    name = "hermes"
    priority = 50
    special_texts = (OPENER, CLOSER)
    style = CallStyle(reader=lambda calls, _marked: CallBlock(calls), openers=(OPENER,), closer=CLOSER)

    def matches(self, template: str) -> bool:
        return OPENER in template

    def body(self, rules: Rules, functions: Sequence[dict[str, Any]], parallel: bool) -> str:
        call, sp = call_rule(rules, functions, "arguments"), rules.space()
        item = rules.add("item", f'"{OPENER}" {sp} {call} {sp} "{CLOSER}"')
        return series(rules, item, sp, parallel)

    def triggers(self, functions: Sequence[dict[str, Any]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return (trigger(escape(OPENER), ("{", '"name"', ":", '"')),), (OPENER,)


FAMILY = Hermes()
