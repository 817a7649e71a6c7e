"""Regular expressions of JSON schemas -> GBNF, for text inside a JSON string.

A subset: literals, classes, `.`, \\d \\w \\s, groups, alternation, quantifiers, ^ and $ at the ends of an alternative.
Look-around, back references, word boundaries and Unicode properties are refused (SchemaError).
"""

from __future__ import annotations

from lumen.workers.llamacpp.chat.gbnf import Rules, SchemaError, literal

Ranges = list[tuple[int, int]]

#: Elements a pattern may unroll to; fewer where counted repetitions are nested, which multiply the sampler's states.
MAX_SIZE = 1000
MAX_NESTED_SIZE = 256
MAX_LENGTH = 2000
MAX_DEPTH = 32

_DIGIT: Ranges = [(0x30, 0x39)]
_WORD: Ranges = [(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)]
_SPACE: Ranges = [(0x09, 0x0A), (0x0C, 0x0D), (0x20, 0x20)]
_SHORTHAND = {"d": _DIGIT, "w": _WORD, "s": _SPACE}
_CONTROL = {"t": 0x09, "n": 0x0A, "r": 0x0D, "f": 0x0C}
_JSON_ESCAPES = {0x22: '\\"', 0x5C: "\\\\", 0x09: "\\t", 0x0A: "\\n", 0x0D: "\\r", 0x0C: "\\f", 0x08: "\\b"}
_TOP = 0x10FFFF


def pattern_rule(rules: Rules, pattern: str) -> str:
    """Body of a rule for a JSON string that matches `pattern` (searched anywhere, as JSON schema has it)."""
    if len(pattern) > MAX_LENGTH:
        raise SchemaError(f"the pattern is longer than {MAX_LENGTH} characters")
    return rf'"\"" ({_Parser(rules, pattern).alternatives(0)}) "\""'


class _Parser:
    def __init__(self, rules: Rules, pattern: str) -> None:
        self._rules = rules
        self._text = pattern
        self._at = 0
        self._size = 0

    def alternatives(self, depth: int) -> str:
        """Alternatives up to the end (depth 0) or to the closing parenthesis."""
        if depth > MAX_DEPTH:
            raise SchemaError("the pattern is nested too deeply")
        parts = [self._sequence(depth)]
        while self._peek() == "|":
            self._at += 1
            parts.append(self._sequence(depth))
        if depth == 0 and self._at < len(self._text):
            raise SchemaError("the pattern has an unmatched )")
        return " | ".join(dict.fromkeys(parts))

    def _sequence(self, depth: int) -> str:
        items: list[str] = []
        anchored, closed = depth > 0, depth > 0
        if depth == 0 and self._peek() == "^":
            self._at += 1
            anchored = True
        while (char := self._peek()) and char not in "|)":
            if depth == 0 and char == "$" and self._text[self._at + 1 : self._at + 2] in ("", "|"):
                self._at += 1
                closed = True
                break
            if char in "^$":
                raise SchemaError("the pattern has ^ or $ elsewhere than at an end")
            before = self._size
            item = self._quantified(self._atom(depth), before)
            if item:
                items.append(item)
        anything = f"{self._rules.char()}*"
        full = [*([] if anchored else [anything]), *items, *([] if closed else [anything])]
        return " ".join(full) or '""'

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self) -> str:
        if self._at >= len(self._text):
            raise SchemaError("the pattern ends too early")
        self._at += 1
        return self._text[self._at - 1]

    def _grow(self, size: int, limit: int = MAX_SIZE) -> None:
        self._size += size
        if self._size > limit:
            raise SchemaError("the pattern repeats too much")

    def _atom(self, depth: int) -> str:
        char = self._take()
        if char == "(":
            return self._group(depth)
        self._grow(1)
        if char == "[":
            return self._class()
        if char == ".":
            return _set([(0x0A, 0x0A), (0x0D, 0x0D)], negate=True)
        if char == "\\":
            ranges, negate = self._escape()
            return _set(ranges, negate)
        if char in "*+?{":
            raise SchemaError(f"the pattern has {char} with nothing before it")
        return _set([(ord(char), ord(char))], negate=False)

    def _group(self, depth: int) -> str:
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
            raise SchemaError("the pattern has an unmatched (")
        self._at += 1
        return f"({inner})"

    def _quantified(self, atom: str, before: int) -> str:
        char = self._peek()
        inner = self._size - before
        if char and char in "*+?":
            self._at += 1
            out = f"{atom}{char}"
        elif char == "{":
            low, high = self._counts()
            times = max(low, high or 0)
            self._grow(inner * max(times - 1, 0), MAX_NESTED_SIZE if inner > 1 else MAX_SIZE)
            if high == 0:
                return ""
            out = f"{atom}{{{low},{'' if high is None else high}}}"
        else:
            return atom
        if self._peek() in ("?", "+"):
            # Lazy and possessive matching change what is captured, hardly what is matched.
            self._at += 1
        return out

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
            raise SchemaError("the pattern has {m,n} with m > n")
        return int(low), upper

    def _escape(self) -> tuple[Ranges, bool]:
        char = self._take()
        if char.lower() in _SHORTHAND:
            return _SHORTHAND[char.lower()], char.isupper()
        if char in _CONTROL:
            return [(_CONTROL[char], _CONTROL[char])], False
        if char in "xu":
            size = 2 if char == "x" else 4
            digits = self._text[self._at : self._at + size]
            try:
                code = int(digits, 16) if len(digits) == size else -1
            except ValueError:
                code = -1
            if code < 1 or 0xD800 <= code < 0xE000:
                raise SchemaError(f"the pattern has a malformed \\{char}")
            self._at += size
            return [(code, code)], False
        if char.isalnum():
            raise SchemaError(f"the pattern uses \\{char}, which cannot be enforced")
        return [(ord(char), ord(char))], False

    def _class(self) -> str:
        negate = self._peek() == "^"
        self._at += negate
        ranges: Ranges = []
        while (char := self._take()) != "]":
            part, inverted = self._escape() if char == "\\" else ([(ord(char), ord(char))], False)
            if inverted:
                part = _complement(part)
            follows = self._text[self._at : self._at + 2]
            if len(part) == 1 and part[0][0] == part[0][1] and follows[:1] == "-" and follows[1:] not in ("", "]"):
                self._at += 1
                last = self._take()
                upper, _ = self._escape() if last == "\\" else ([(ord(last), ord(last))], False)
                if len(upper) != 1 or upper[0][0] < part[0][0]:
                    raise SchemaError("the pattern has a malformed range")
                part = [(part[0][0], upper[0][1])]
            ranges += part
        return _set(ranges, negate)


def _complement(ranges: Ranges) -> Ranges:
    out: Ranges = []
    begin = 1
    for low, high in sorted(ranges):
        if low > begin:
            out.append((begin, low - 1))
        begin = max(begin, high + 1)
    if begin <= _TOP:
        out.append((begin, _TOP))
    return out


def _set(ranges: Ranges, negate: bool) -> str:
    """One character of a set, as it stands in a JSON string: what JSON must escape is written as its escape."""
    wanted = _complement(ranges) if negate else sorted(ranges)
    escaped = [text for code, text in _JSON_ESCAPES.items() if any(low <= code <= high for low, high in wanted)]
    plain: list[str] = []
    for low, high in wanted:
        # JSON strings hold neither controls nor, unescaped, the quote and the backslash.
        for first, last in ((0x20, 0x21), (0x23, 0x5B), (0x5D, 0x7E), (0x80, 0xD7FF), (0xE000, _TOP)):
            begin, end = max(low, first), min(high, last)
            if begin <= end:
                plain.append(_char(begin) if begin == end else f"{_char(begin)}-{_char(end)}")
    parts = [f"[{''.join(dict.fromkeys(plain))}]"] if plain else []
    parts += [literal(text) for text in escaped]
    if not parts:
        raise SchemaError("the pattern has a character that JSON text cannot hold")
    return parts[0] if len(parts) == 1 else f"({' | '.join(parts)})"


def _char(code: int) -> str:
    if 0x30 <= code <= 0x39 or 0x41 <= code <= 0x5A or 0x61 <= code <= 0x7A:
        return chr(code)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
