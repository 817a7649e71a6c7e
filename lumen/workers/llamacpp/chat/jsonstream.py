"""One JSON value read as it streams in, cut anywhere."""

from __future__ import annotations

import re
from enum import Enum, auto

#: Containers open at once; deeper is refused, so that the stack stays small.
MAX_DEPTH = 128

#: Characters of a number or of true/false/null.
MAX_ATOM = 400

BLANK = " \t\r\n"
_ATOM = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|true|false|null")
_ATOM_CHARS = frozenset("+-.0123456789Eaeflnrstu")
_PLAIN = re.compile(r'[^"\\\x00-\x1f]+')
_CONTROLS = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}


class _Want(Enum):
    VALUE = auto()
    VALUE_OR_END = auto()
    KEY = auto()
    KEY_OR_END = auto()
    COLON = auto()
    COMMA_OR_END = auto()


class JsonValue:
    """Reads one value. `done` once it is complete, `bad` once it cannot be JSON.

    What is read is given back as it was written, save that a raw control character inside a string, which models
    write and JSON forbids, comes back escaped.
    """

    __slots__ = ("_atom", "_escape", "_in_string", "_is_key", "_stack", "_want", "bad", "done")

    def __init__(self) -> None:
        self.done = False
        self.bad = False
        self._stack: list[str] = []
        self._want = _Want.VALUE
        self._in_string = False
        self._is_key = False
        self._escape = 0
        self._atom = ""

    def push(self, text: str, at: int = 0) -> tuple[str, int]:
        """Reads from `text[at:]` what belongs to the value: (that text, the index after it)."""
        out: list[str] = []
        while at < len(text) and not self.done and not self.bad:
            if self._in_string:
                at = self._string(text, at, out)
            elif self._atom:
                at = self._atom_char(text, at, out)
            else:
                at = self._structure(text, at, out)
        return "".join(out), at

    def _string(self, text: str, at: int, out: list[str]) -> int:
        char = text[at]
        if self._escape:
            return self._escaped(char, at, out)
        plain = _PLAIN.match(text, at)
        if plain:
            out.append(plain.group())
            return plain.end()
        if char == "\\":
            self._escape = 1
            out.append(char)
        elif char == '"':
            self._in_string = False
            out.append(char)
            if self._is_key:
                self._want = _Want.COLON
            else:
                self._value_ended()
        else:
            out.append(_CONTROLS.get(char) or f"\\u{ord(char):04x}")
        return at + 1

    def _escaped(self, char: str, at: int, out: list[str]) -> int:
        if self._escape == 1:
            if char not in '"\\/bfnrtu':
                self.bad = True
                return at
            self._escape = 5 if char == "u" else 0
        elif char in "0123456789abcdefABCDEF":
            self._escape = 0 if self._escape == 2 else self._escape - 1
        else:
            self.bad = True
            return at
        out.append(char)
        return at + 1

    def _atom_char(self, text: str, at: int, out: list[str]) -> int:
        char = text[at]
        if char not in _ATOM_CHARS:
            self._end_atom()
            return at
        if len(self._atom) >= MAX_ATOM:
            self.bad = True
            return at
        self._atom += char
        out.append(char)
        return at + 1

    def _end_atom(self) -> None:
        if _ATOM.fullmatch(self._atom):
            self._atom = ""
            self._value_ended()
        else:
            self.bad = True

    def _structure(self, text: str, at: int, out: list[str]) -> int:
        char = text[at]
        want = self._want
        if char in BLANK:
            out.append(char)
            return at + 1
        if want is _Want.COLON and char == ":":
            self._want = _Want.VALUE
        elif want is _Want.COMMA_OR_END and char == ",":
            self._want = _Want.KEY if self._stack[-1] == "{" else _Want.VALUE
        elif want in (_Want.KEY, _Want.KEY_OR_END) and char == '"':
            self._in_string = self._is_key = True
        elif self._ends(char):
            self._stack.pop()
            self._value_ended()
        elif want in (_Want.VALUE, _Want.VALUE_OR_END):
            self._begin(char)
        else:
            self.bad = True
        if self.bad:
            return at
        out.append(char)
        return at + 1

    def _ends(self, char: str) -> bool:
        if not self._stack:
            return False
        if self._stack[-1] == "{":
            return char == "}" and self._want in (_Want.KEY_OR_END, _Want.COMMA_OR_END)
        return char == "]" and self._want in (_Want.VALUE_OR_END, _Want.COMMA_OR_END)

    def _begin(self, char: str) -> None:
        if char == '"':
            self._in_string, self._is_key = True, False
        elif char in "{[":
            if len(self._stack) >= MAX_DEPTH:
                self.bad = True
                return
            self._stack.append(char)
            self._want = _Want.KEY_OR_END if char == "{" else _Want.VALUE_OR_END
        elif char in "-0123456789tfn":
            self._atom = char
        else:
            self.bad = True

    def _value_ended(self) -> None:
        if self._stack:
            self._want = _Want.COMMA_OR_END
        else:
            self.done = True
