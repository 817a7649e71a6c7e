"""Mistral: `[TOOL_CALLS][{"name": …, "arguments": {…}}, …]`. Reads the newer `[TOOL_CALLS]name[ARGS]{…}` too."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

from lumen.workers.llamacpp.chat.callgrammar import call_rule, escape, series, trigger
from lumen.workers.llamacpp.chat.callparser import CallStyle
from lumen.workers.llamacpp.chat.calls import MAX_HEAD, ArgumentsReader, CallBlock, Calls, Reader
from lumen.workers.llamacpp.chat.families.base import MarkedFamily, Messages
from lumen.workers.llamacpp.chat.gbnf import Rules, branches
from lumen.workers.llamacpp.chat.jsonstream import BLANK
from lumen.workers.llamacpp.chat.schema import arguments_rule
from lumen.workers.llamacpp.chat.tools import ToolChoice, Tools

OPENER = "[TOOL_CALLS]"
ARGS = "[ARGS]"
CALL_ID = "[CALL_ID]"
_ID = re.compile(r"[a-zA-Z0-9]{9}")
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class NamedReader:
    """Reads `name[ARGS]{…}` (also `name[CALL_ID]id[ARGS]{…}` and `name{…}`), or hands an array of call objects on."""

    def __init__(self, calls: Calls) -> None:
        self.done = False
        self.bad = False
        self.raw = ""
        self._calls = calls
        self._block: CallBlock | None = None
        self._arguments: ArgumentsReader | None = None
        self._began = False

    def push(self, text: str, at: int) -> int:
        while at < len(text) and not self.done and not self.bad:
            if self._block is not None:
                at = self._block.push(text, at)
                self.raw, self.done, self.bad = self._block.raw, self._block.done, self._block.bad
            elif self._arguments is not None:
                start = at
                at = self._arguments.push(text, at)
                self.raw += "" if self._began else text[start:at]
                self.done, self.bad = self._arguments.done, self._arguments.bad
            else:
                at = self._head(text, at)
        return at

    def unread(self) -> str:
        if self._block is not None:
            return self._block.unread()
        return "" if self._began else self.raw

    def _head(self, text: str, at: int) -> int:
        char = text[at]
        if char in "[{" and not self.raw.strip(BLANK):
            self._block = CallBlock(self._calls)
            return at
        if char != "{":
            self.raw += char
            self.bad = len(self.raw) > MAX_HEAD or (char in "<>\n" and bool(self.raw.strip(BLANK)))
            return at + 1
        head = self.raw.strip(BLANK).removesuffix(ARGS)
        self._name = head.split(CALL_ID)[0].strip(BLANK)
        if self._name not in self._calls.names:
            self.bad = True
        else:
            self._arguments = ArgumentsReader(self._forward)
        return at

    def _forward(self, fragment: str) -> None:
        if not self._began:
            self._began, self.raw = True, ""
            self._calls.begin(self._name)
        self._calls.arguments(fragment)


def _reader(calls: Calls, _marked: bool) -> Reader:
    return NamedReader(calls)


class Mistral(MarkedFamily):
    priority = 60
    special_texts = (OPENER, ARGS, CALL_ID)
    style = CallStyle(reader=_reader, openers=(OPENER,))

    def __init__(self, name: str, named: bool) -> None:
        self.name = name
        self._named = named

    def matches(self, template: str) -> bool:
        return OPENER in template and (ARGS in template) is self._named

    def adapt(self, messages: Messages, tools: Tools, tool_choice: ToolChoice, parallel: bool, source: str) -> Messages:
        return [_short_ids(message) for message in messages]

    def body(self, rules: Rules, functions: Sequence[dict[str, Any]], parallel: bool) -> str:
        if self._named:
            item = rules.add("item", f'"{OPENER}" ({named_rules(rules, functions)})')
            return series(rules, item, "", parallel)
        call, sp = call_rule(rules, functions, "arguments"), rules.space()
        calls = series(rules, call, f'{sp} "," {sp}', parallel)
        return f'"{OPENER}" {sp} "[" {sp} {calls} {sp} "]"'

    def triggers(self, functions: Sequence[dict[str, Any]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        head = () if self._named else ("[", "{", '"name"', ":", '"')
        return (trigger(escape(OPENER), head),), (OPENER,)


def named_rules(rules: Rules, functions: Sequence[dict[str, Any]]) -> str:
    """Alternatives `name[ARGS]{…}`, one for each function."""
    return branches({f"{function.get('name', '')}{ARGS}": arguments_rule(rules, function) for function in functions})


def _short_ids(message: dict[str, Any]) -> dict[str, Any]:
    """Templates of this family demand call ids of nine letters or digits: others are mapped to such, always alike."""
    out = dict(message)
    if isinstance(out.get("tool_call_id"), str):
        out["tool_call_id"] = _short_id(out["tool_call_id"])
    if isinstance(out.get("tool_calls"), list):
        out["tool_calls"] = [
            {**call, "id": _short_id(call["id"])}
            if isinstance(call, dict) and isinstance(call.get("id"), str)
            else call
            for call in out["tool_calls"]
        ]
    return out


def _short_id(call_id: str) -> str:
    if _ID.fullmatch(call_id):
        return call_id
    number = int.from_bytes(hashlib.sha256(call_id.encode("utf-8", "replace")).digest()[:8], "big")
    chars = []
    for _ in range(9):
        number, digit = divmod(number, len(_ALPHABET))
        chars.append(_ALPHABET[digit])
    return "".join(chars)


FAMILY = Mistral("mistral", named=False)
