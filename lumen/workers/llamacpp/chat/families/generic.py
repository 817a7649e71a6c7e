"""The fallback: a template that knows no tools. The tools are described in the system message and the model answers
with one JSON object, `{"name", "arguments"}` or `{"tool_calls": [{"name", "arguments"}, …]}`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from lumen.workers.llamacpp.chat.callgrammar import BEGINNING, BLANKS, call_rule, named_opener, series, trigger
from lumen.workers.llamacpp.chat.callparser import CallStyle
from lumen.workers.llamacpp.chat.calls import MAX_HEAD, CallBlock, Calls, Reader
from lumen.workers.llamacpp.chat.families.base import MarkedFamily, Messages
from lumen.workers.llamacpp.chat.gbnf import Rules
from lumen.workers.llamacpp.chat.jsonstream import BLANK
from lumen.workers.llamacpp.chat.tools import ToolChoice, Tools, choice_kind, chosen

_WRAPPER = ("{", '"tool_calls"', ":")


class WrappedReader:
    """Reads `{"tool_calls": [ … ]}` or a lone call object; foreign keys are refused at once."""

    def __init__(self, calls: Calls) -> None:
        self.done = False
        self.bad = False
        self.raw = ""
        self._calls = calls
        self._head = 0
        self._matched = 0
        self._block: CallBlock | None = None
        self._wrapped = False
        self._closing = False

    def push(self, text: str, at: int) -> int:
        while at < len(text) and not self.done and not self.bad:
            if self._closing:
                self.done = text[at] == "}"
                self.bad = not self.done and text[at] not in BLANK
                at += not self.bad
            elif self._block is not None:
                at = self._inner(self._block, text, at)
            else:
                at = self._wrapper(text, at)
        return at

    def unread(self) -> str:
        if self._closing:
            return ""
        return self._before() + self._block.unread() if self._block is not None else self.raw

    def _wrapper(self, text: str, at: int) -> int:
        """Matches `{"tool_calls":` with blanks anywhere between; anything else is a lone call, read again."""
        char = text[at]
        word = _WRAPPER[self._head]
        self.raw += char
        if char in BLANK and not self._matched:
            self.bad = len(self.raw) > MAX_HEAD
        elif char == word[self._matched]:
            self._matched += 1
            if self._matched == len(word):
                self._head, self._matched = self._head + 1, 0
            if self._head == len(_WRAPPER):
                self._block, self._wrapped = CallBlock(self._calls, strict=True), True
        else:
            self._block = CallBlock(self._calls, strict=True)
            before, self.raw = self.raw, ""
            read = self._inner(self._block, before, 0)
            self.raw += before[read:]
        return at + 1

    def _inner(self, block: CallBlock, text: str, at: int) -> int:
        at = block.push(text, at)
        if block.bad:
            self.bad = True
            self.raw = self._before() + block.raw
        elif block.done:
            self.raw = ""
            self._closing, self.done = self._wrapped, not self._wrapped
        return at

    def _before(self) -> str:
        """The wrapper's text, as long as no call made it worthless."""
        return self.raw if self._wrapped and not self._calls.count else ""


def _reader(calls: Calls, _marked: bool) -> Reader:
    return WrappedReader(calls)


class Generic(MarkedFamily):
    name = "generic"
    priority = 0
    native = False
    style = CallStyle(reader=_reader, lead=("```json", "```"), closer="```", bare="{[", separators=";,")

    def matches(self, template: str) -> bool:
        return True

    def adapt(self, messages: Messages, tools: Tools, tool_choice: ToolChoice, parallel: bool, source: str) -> Messages:
        plain = [_as_text(message) for message in messages]
        if not tools or choice_kind(tool_choice) == "none":
            return plain
        text = instructions(tools, tool_choice, parallel)
        if plain and plain[0].get("role") in ("system", "developer"):
            first = dict(plain[0])
            content = first.get("content")
            if isinstance(content, list):
                first["content"] = [*content, {"type": "text", "text": "\n\n" + text}]
            else:
                first["content"] = f"{content}\n\n{text}" if content else text
            return [first, *plain[1:]]
        return [{"role": "system", "content": text}, *plain]

    def body(self, rules: Rules, functions: Sequence[dict[str, Any]], parallel: bool) -> str:
        call, sp = call_rule(rules, functions, "arguments"), rules.space()
        several = series(rules, call, f'{sp} "," {sp}', parallel)
        wrapped = f'"{{" {sp} "\\"tool_calls\\"" {sp} ":" {sp} "[" {sp} {several} {sp} "]" {sp} "}}"'
        return f"{call} | {rules.add('wrapped', wrapped)}"

    def triggers(self, functions: Sequence[dict[str, Any]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        lone = trigger(named_opener(functions), (",", '"arguments"', ":", "{"), BEGINNING)
        many = trigger(rf'\{{{BLANKS}"tool_calls"', (":", "[", "{", '"name"', ":", '"'), BEGINNING)
        return (lone, many), ()


def instructions(tools: Tools, tool_choice: ToolChoice, parallel: bool) -> str:
    """What a model that was trained without this template's help is told about the tools."""
    listed = "\n".join(json.dumps(function, ensure_ascii=False) for function in chosen(tools, tool_choice))
    lines = [
        "You can call these functions; each line is the JSON description of one:",
        listed,
        "To call one, answer with nothing but a JSON object of this form:",
        '{"name": "<function name>", "arguments": {<arguments as its parameters say>}}',
    ]
    if parallel:
        lines += [
            "To call several at once, answer with nothing but:",
            '{"tool_calls": [{"name": "<function name>", "arguments": {…}}, …]}',
        ]
    if choice_kind(tool_choice) == "auto":
        lines.append("Where no function is needed, answer in plain text.")
    else:
        lines.append("You must call a function now.")
    return "\n".join(lines)


def _as_text(message: dict[str, Any]) -> dict[str, Any]:
    """Calls and results as plain turns, for templates that know only user and assistant."""
    role = message.get("role")
    if role == "tool":
        told = f"Result of call {message['tool_call_id']}: " if message.get("tool_call_id") else "Result: "
        content = message.get("content")
        if isinstance(content, list):
            content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
        return {"role": "user", "content": f"{told}{content}"}
    calls = message.get("tool_calls")
    if role != "assistant" or not calls:
        return message
    plain = []
    for call in calls:
        function = call.get("function", {})
        arguments = function.get("arguments", {})
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments)
            except (ValueError, RecursionError):
                arguments = {"text": arguments}
        plain.append({"name": function.get("name"), "arguments": arguments})
    shown = json.dumps(plain[0] if len(plain) == 1 else {"tool_calls": plain}, ensure_ascii=False)
    text = message.get("content")
    rest = {key: value for key, value in message.items() if key != "tool_calls"}
    return {**rest, "content": f"{text}\n{shown}" if isinstance(text, str) and text else shown}


FAMILY = Generic()
