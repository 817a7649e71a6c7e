"""Readers of tool calls written as JSON: `{"name": …, "arguments": {…}}`, alone or in an array."""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol

from lumen.workers.llamacpp.chat.jsonstream import BLANK, JsonValue
from lumen.workers.llamacpp.chat.output import Delta, ToolDelta

#: Characters of one call held back before its name and the beginning of its arguments are known.
MAX_HEAD = 16 * 1024

NAME_KEYS = frozenset({"name"})
ARGUMENT_KEYS = frozenset({"arguments", "parameters"})
OTHER_KEYS = frozenset({"type", "id", "index"})


class Calls:
    """The calls of one answer: hands out indexes and ids, collects deltas."""

    def __init__(self, names: frozenset[str], ids: Callable[[int], str]) -> None:
        self.names = names
        self.count = 0
        self._ids = ids
        self._out: list[Delta] = []

    def begin(self, name: str) -> None:
        self._out.append(Delta(tool=ToolDelta(self.count, self._ids(self.count), name, "")))
        self.count += 1

    def arguments(self, fragment: str) -> None:
        if fragment:
            self._out.append(Delta(tool=ToolDelta(self.count - 1, arguments=fragment)))

    def take(self) -> list[Delta]:
        out, self._out = self._out, []
        return out


class Reader(Protocol):
    """Reads what follows an opener. `raw`: text that has been read and is neither delivered nor needed any more once
    `done`; on `bad` it is content after all."""

    done: bool
    bad: bool
    raw: str

    def push(self, text: str, at: int) -> int:
        """Reads from `text[at:]`; the index after what was read."""

    def unread(self) -> str:
        """Text that is no part of a call that was begun, for an answer that ends here."""


class _State(Enum):
    BEGIN = auto()
    KEY_OR_END = auto()
    KEY = auto()
    COLON = auto()
    VALUE = auto()
    COMMA_OR_END = auto()


class ArgumentsReader:
    """Reads one arguments value (an object, a string that holds an object, or null) and forwards it as it comes."""

    def __init__(self, forward: Callable[[str], None]) -> None:
        self.done = False
        self.bad = False
        self.streaming = False
        self._forward = forward
        self._value = JsonValue()
        self._kind = ""
        self._kept = ""

    def push(self, text: str, at: int) -> int:
        if not self._kind:
            while at < len(text) and text[at] in BLANK:
                at += 1
            if at == len(text):
                return at
            self._kind = text[at]
            if self._kind not in '{"n':
                self.bad = True
                return at
            self.streaming = self._kind == "{"
        fragment, at = self._value.push(text, at)
        if self.streaming:
            self._forward(fragment)
        else:
            self._kept += fragment
            self.bad = len(self._kept) > MAX_HEAD
        self.bad = self.bad or self._value.bad
        if self._value.done and not self.bad:
            self._finish()
        return at

    def _finish(self) -> None:
        if not self.streaming:
            text = json.loads(self._kept)
            inner = "{}" if text is None else text
            if not _is_object(inner):
                self.bad = True
                return
            self._forward(inner.strip())
        self.done = True


def _is_object(text: str) -> bool:
    value = JsonValue()
    stripped = text.strip()
    shown, end = value.push(stripped)
    return stripped.startswith("{") and value.done and end == len(stripped) and shown == stripped


class CallObject:
    """Reads `{"name": …, "arguments": …}`, keys in any order, "parameters" for "arguments".

    Nothing is delivered before the name is known to be that of an offered tool and the arguments have begun; until
    then the text is kept in `raw`, so that what turns out to be no call is content. `strict` refuses foreign keys at
    once (for JSON that nothing marks as a call).
    """

    def __init__(self, calls: Calls, strict: bool) -> None:
        self.done = False
        self.bad = False
        self.raw = ""
        self._calls = calls
        self._strict = strict
        self._state = _State.BEGIN
        self._value = JsonValue()
        self._text = ""
        self._key = ""
        self._name: str | None = None
        self._early: list[str] = []
        self._arguments: ArgumentsReader | None = None
        self._settled = False
        self.begun = False

    def push(self, text: str, at: int) -> int:
        while at < len(text) and not self.done and not self.bad:
            start, settled = at, self._settled
            if self._state is _State.VALUE:
                at = self._read_value(text, at)
            elif self._state is _State.KEY and self._text:
                at = self._read_key(text, at)
            else:
                at = self._structure(text, at)
            if settled or not self.begun:
                self.raw += text[start:at]
                self.bad = self.bad or len(self.raw) > MAX_HEAD
        return at

    def _structure(self, text: str, at: int) -> int:
        char = text[at]
        if char in BLANK:
            return at + 1
        state = self._state
        if state is _State.BEGIN and char == "{":
            self._state = _State.KEY_OR_END
        elif state in (_State.KEY, _State.KEY_OR_END) and char == '"':
            self._state, self._value, self._text = _State.KEY, JsonValue(), ""
            self._text, at = self._value.push(text, at)
            return self._key_read(at)
        elif state is _State.COLON and char == ":":
            self._begin_value()
        elif state is _State.COMMA_OR_END and char == ",":
            self._state = _State.KEY
        elif state in (_State.COMMA_OR_END, _State.KEY_OR_END) and char == "}":
            self._end()
            return at if self.bad else at + 1
        else:
            self.bad = True
            return at
        return at + 1

    def _read_key(self, text: str, at: int) -> int:
        fragment, at = self._value.push(text, at)
        self._text += fragment
        return self._key_read(at)

    def _key_read(self, at: int) -> int:
        if self._value.bad or len(self._text) > MAX_HEAD:
            self.bad = True
        elif self._value.done:
            self._key, self._text = json.loads(self._text), ""
            known = self._key in NAME_KEYS or self._key in ARGUMENT_KEYS or self._key in OTHER_KEYS
            repeated = self._key in ARGUMENT_KEYS and self._arguments is not None
            self.bad = repeated or (self._strict and not known)
            self._state = _State.COLON
        return at

    def _begin_value(self) -> None:
        self._state, self._value, self._text = _State.VALUE, JsonValue(), ""
        if self._key in ARGUMENT_KEYS:
            self._arguments = ArgumentsReader(self._forward)

    def _read_value(self, text: str, at: int) -> int:
        if self._key in ARGUMENT_KEYS and self._arguments is not None:
            at = self._arguments.push(text, at)
            self.bad = self._arguments.bad
            if self._arguments.done:
                self._settled = self.begun
                self._state = _State.COMMA_OR_END
            return at
        fragment, at = self._value.push(text, at)
        if self._key in NAME_KEYS:
            self._text += fragment
        self.bad = self._value.bad
        if self._value.done:
            self._state = _State.COMMA_OR_END
            if self._key in NAME_KEYS:
                self._named()
        return at

    def _named(self) -> None:
        name, self._text = json.loads(self._text), ""
        if self._name is not None or not isinstance(name, str) or name not in self._calls.names:
            self.bad = True
            return
        self._name = name
        early, self._early = self._early, []
        if early:
            self._forward("".join(early))

    def _forward(self, fragment: str) -> None:
        if self._name is None:
            self._early.append(fragment)
            return
        if not self.begun:
            self.begun = True
            self.raw = ""
            self._calls.begin(self._name)
        self._calls.arguments(fragment)

    def _end(self) -> None:
        if self._name is None:
            self.bad = True
            return
        if self._arguments is None:
            self._forward("{}")
        self.done = True


class CallBlock:
    """Reads one call object, or an array of them."""

    def __init__(self, calls: Calls, strict: bool = False) -> None:
        self.done = False
        self.bad = False
        self.raw = ""
        self._calls = calls
        self._strict = strict
        self._array = False
        self._between = False
        self._object: CallObject | None = None

    def push(self, text: str, at: int) -> int:
        while at < len(text) and not self.done and not self.bad:
            if self._object is not None:
                at = self._read_object(self._object, text, at)
                continue
            char = text[at]
            if char == "{" and not self._between:
                self._object = CallObject(self._calls, self._strict)
                continue
            if char == "[" and not self._array:
                self._array = True
            elif char == "," and self._between:
                self._between = False
            elif char == "]" and self._between:
                self.done = True
            elif char not in BLANK:
                self.bad = True
                break
            self.raw += char
            at += 1
            self.bad = len(self.raw) > MAX_HEAD
        return at

    def _read_object(self, reader: CallObject, text: str, at: int) -> int:
        before = self._calls.count
        at = reader.push(text, at)
        if self._calls.count != before:
            self.raw = ""
        if reader.bad:
            self.raw += reader.raw
            self.bad = True
        elif reader.done:
            self._object = None
            self._between = self._array
            self.done = not self._array
        return at

    def unread(self) -> str:
        """Text that is no part of a call that was begun, for an answer that ends here."""
        if self._object is None:
            return "" if self._between else self.raw
        return "" if self._object.begun else self.raw + self._object.raw
