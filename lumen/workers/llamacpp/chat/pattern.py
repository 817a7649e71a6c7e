"""Regular expressions of JSON schemas -> GBNF, for text inside a JSON string.

A subset: literals, classes, `.`, \\d \\w \\s, groups, alternation, quantifiers, ^ and $ at the ends of an alternative.
Look-around, back references, word boundaries and Unicode properties are refused (SchemaError).
"""

from __future__ import annotations

from collections.abc import Callable

from lumen.workers.llamacpp.chat.automaton import TOP, Nfa, Ranges, complement, string_rule
from lumen.workers.llamacpp.chat.gbnf import Rules, SchemaError

MAX_LENGTH = 2000
MAX_DEPTH = 32

Piece = tuple[int, int]
Make = Callable[[], Piece]
"""Builds a fresh copy of a piece of the automaton (a counted repetition needs several)."""

_DIGIT: Ranges = [(0x30, 0x39)]
_WORD: Ranges = [(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)]
_SPACE: Ranges = [(0x09, 0x0A), (0x0C, 0x0D), (0x20, 0x20)]
_SHORTHAND = {"d": _DIGIT, "w": _WORD, "s": _SPACE}
_CONTROL = {"t": 0x09, "n": 0x0A, "r": 0x0D, "f": 0x0C}
_LINE_ENDS: Ranges = [(0x0A, 0x0A), (0x0D, 0x0D)]


class BrokenPattern(SchemaError):
    """It is no regular expression at all, rather than one beyond the subset."""


def pattern_rule(rules: Rules, pattern: str) -> str:
    """Rule of a JSON string that matches `pattern` (searched anywhere, as JSON schema has it).

    Raises:
        BrokenPattern: it is no regular expression.
        SchemaError: it is beyond the subset.
    """
    if len(pattern) > MAX_LENGTH:
        raise SchemaError(f"the pattern is longer than {MAX_LENGTH} characters")
    nfa = Nfa()
    return string_rule(rules, nfa, _Parser(nfa, pattern).alternatives(0)())


class _Parser:
    def __init__(self, nfa: Nfa, pattern: str) -> None:
        self._nfa = nfa
        self._text = pattern
        self._at = 0

    def alternatives(self, depth: int) -> Make:
        """Alternatives up to the end (depth 0) or to the closing parenthesis."""
        if depth > MAX_DEPTH:
            raise SchemaError("the pattern is nested too deeply")
        parts = [self._sequence(depth)]
        while self._peek() == "|":
            self._at += 1
            parts.append(self._sequence(depth))
        if depth == 0 and self._at < len(self._text):
            raise BrokenPattern("the pattern has an unmatched )")
        return parts[0] if len(parts) == 1 else lambda: self._nfa.either([part() for part in parts])

    def _sequence(self, depth: int) -> Make:
        items: list[Make] = []
        closed = depth > 0
        if depth == 0:
            if self._peek() == "^":
                self._at += 1
            else:
                items.append(self._anything)
        while (char := self._peek()) and char not in "|)":
            if depth == 0 and char == "$" and self._text[self._at + 1 : self._at + 2] in ("", "|"):
                self._at += 1
                closed = True
                break
            if char in "^$":
                raise SchemaError("the pattern has ^ or $ elsewhere than at an end")
            items.append(self._quantified(self._atom(depth)))
        if not closed:
            items.append(self._anything)
        return lambda: self._nfa.chain([item() for item in items])

    def _anything(self) -> Piece:
        return self._nfa.star(self._nfa.chars([(1, TOP)]))

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self) -> str:
        if self._at >= len(self._text):
            raise BrokenPattern("the pattern ends too early")
        self._at += 1
        return self._text[self._at - 1]

    def _atom(self, depth: int) -> Make:
        char = self._take()
        if char == "(":
            return self._group(depth)
        if char in "*+?{":
            # A brace on its own is a character in some dialects.
            kind = SchemaError if char == "{" else BrokenPattern
            raise kind(f"the pattern has {char} with nothing before it")
        if char == "[":
            ranges = self._class()
        elif char == ".":
            ranges = complement(_LINE_ENDS)
        elif char == "\\":
            ranges = self._escape()
        else:
            ranges = [(ord(char), ord(char))]
        return lambda: self._nfa.chars(ranges)

    def _group(self, depth: int) -> Make:
        if self._peek() == "?":
            self._at += 1
            kind = self._take()
            if kind == "<" and self._peek() not in ("=", "!"):
                while self._take() != ">":
                    pass
            elif kind != ":":
                raise SchemaError("the pattern looks ahead or behind")
        inner = self.alternatives(depth + 1)
        if self._peek() != ")":
            raise BrokenPattern("the pattern has an unmatched (")
        self._at += 1
        return inner

    def _quantified(self, atom: Make) -> Make:
        char = self._peek()
        if not char or char not in "*+?{":
            return atom
        if char == "{":
            low, high = self._counts()
        else:
            self._at += 1
            low, high = {"*": (0, None), "+": (1, None), "?": (0, 1)}[char]
        if self._peek() in ("?", "+"):
            # Lazy and possessive matching change what is captured, hardly what is matched.
            self._at += 1
        return lambda: self._repeated(atom, low, high)

    def _repeated(self, atom: Make, low: int, high: int | None) -> Piece:
        nfa = self._nfa
        pieces = [atom() for _ in range(low)]
        if high is None:
            return nfa.chain([*pieces, nfa.star(atom())])
        rest = nfa.empty()
        for _ in range(high - low):
            rest = nfa.optional(nfa.chain([atom(), rest]))
        return nfa.chain([*pieces, rest])

    def _counts(self) -> tuple[int, int | None]:
        end = self._text.find("}", self._at)
        body = self._text[self._at + 1 : end]
        low, comma, high = body.partition(",")
        digits = low + high
        if end < 0 or not low or not digits.isascii() or not digits.isdigit() or len(digits) > 8:
            raise SchemaError("the pattern has a malformed {m,n}")
        self._at = end + 1
        upper = (int(high) if high else None) if comma else int(low)
        if upper is not None and upper < int(low):
            raise BrokenPattern("the pattern has {m,n} with m > n")
        return int(low), upper

    def _escape(self) -> Ranges:
        char = self._take()
        if char.lower() in _SHORTHAND:
            ranges = _SHORTHAND[char.lower()]
            return complement(ranges) if char.isupper() else ranges
        if char in _CONTROL:
            return [(_CONTROL[char], _CONTROL[char])]
        if char in "xu":
            code = self._hexadecimal(2 if char == "x" else 4)
            return [(code, code)]
        if char.isalnum():
            raise SchemaError(f"the pattern uses \\{char}, which cannot be enforced")
        return [(ord(char), ord(char))]

    def _hexadecimal(self, size: int) -> int:
        digits = self._text[self._at : self._at + size]
        self._at += size
        if len(digits) < size or any(digit not in "0123456789abcdefABCDEF" for digit in digits):
            raise SchemaError("the pattern has a malformed \\x or \\u")
        code = int(digits, 16)
        if code == 0 or 0xD800 <= code < 0xE000:
            raise SchemaError("the pattern names a character that JSON text cannot hold")
        return code

    def _class(self) -> Ranges:
        negate = self._peek() == "^"
        self._at += negate
        ranges: Ranges = []
        while (char := self._take()) != "]":
            part = self._escape() if char == "\\" else [(ord(char), ord(char))]
            if self._peek() == "-" and self._text[self._at + 1 : self._at + 2] not in ("", "]"):
                self._at += 1
                last = self._take()
                upper = self._escape() if last == "\\" else [(ord(last), ord(last))]
                if not _single(part) or not _single(upper) or upper[0][0] < part[0][0]:
                    raise BrokenPattern("the pattern has a malformed range")
                part = [(part[0][0], upper[0][0])]
            ranges += part
        return complement(ranges) if negate else ranges


def _single(ranges: Ranges) -> bool:
    return len(ranges) == 1 and ranges[0][0] == ranges[0][1]
