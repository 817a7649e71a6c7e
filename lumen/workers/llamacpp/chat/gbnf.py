"""GBNF text: the `Grammar` handed to the sampler, and the rule book the converters write into."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

#: A grammar larger than this is refused: the sampler copies every rule, and one request must not cost megabytes.
MAX_GRAMMAR_CHARS = 512 * 1024

#: Repetitions are unrolled by the sampler's parser into one rule each; it refuses 2,000 and more.
MAX_UNROLLED = 64

#: Levels of common beginnings that alternatives share.
MAX_SHARING = 24


class SchemaError(ValueError):
    """A schema that cannot become a grammar; the text says why."""


@dataclass(frozen=True, slots=True)
class Grammar:
    """A GBNF grammar and when it begins to bind.

    lazy: False binds from the first token. True binds once one of `trigger_tokens` is sampled, or once one of
    `trigger_patterns` (ECMAScript regular expressions, searched in the text generated so far) matches; the text
    given to the grammar then begins at the pattern's first group, the opener of a call included. A pattern matches
    only where the text ends inside the fixed head of a call, so that what a token carries beyond the opener is
    always acceptable: the sampler aborts the process on text its grammar refuses.
    trigger_tokens: texts; each counts only where the vocabulary holds it as one single token.
    """

    gbnf: str
    root: str = "root"
    lazy: bool = False
    trigger_patterns: tuple[str, ...] = ()
    trigger_tokens: tuple[str, ...] = ()

    def after_thinking(self, opened: bool, opener: str, closer: str) -> Grammar:
        """This grammar behind a reasoning passage: `… closer` where the prompt already opened it, else an
        optional `opener … closer`. Lazy grammars are returned as they are: their trigger looks past the passage."""
        if self.lazy:
            return self
        rules = until_rules("think-text", closer)
        tail = f"think-text space {self.root}"
        first = tail if opened else f"({literal(opener)} {tail} | {self.root})"
        space = "" if re.search(r"^space ::=", self.gbnf, re.MULTILINE) else f"space ::= {SPACE}\n"
        gbnf = f"answer-root ::= {first}\n{rules}\n{space}{self.gbnf}"
        return replace(self, gbnf=gbnf, root="answer-root")


#: White space between JSON tokens, bounded: an unbounded one lets a model write blanks for ever.
SPACE = r'(" " | "\n" "\n"? [ \t]{0,20})?'

_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def literal(text: str) -> str:
    """`text` as a GBNF string literal."""
    out = []
    for char in text:
        code = ord(char)
        if char in _ESCAPES:
            out.append(_ESCAPES[char])
        elif code < 0x20 or code == 0x7F:
            out.append(f"\\x{code:02x}")
        else:
            out.append(char)
    return '"' + "".join(out) + '"'


def char_class(chars: Iterable[str], negate: bool = False) -> str:
    """A GBNF character class of single characters."""
    body = "".join(_class_char(c) for c in sorted(chars))
    return f"[{'^' if negate else ''}{body}]"


def _class_char(char: str) -> str:
    if char in "[]\\-^":
        return f"\\x{ord(char):02x}"
    if char in _ESCAPES and char != '"':
        return _ESCAPES[char]
    if ord(char) < 0x20 or ord(char) == 0x7F:
        return f"\\x{ord(char):02x}"
    return char


def choice(texts: Sequence[str]) -> str:
    """An expression of any of `texts`."""
    return branches(dict.fromkeys(texts, ""))


def branches(texts: Mapping[str, str], depth: int = 0) -> str:
    """An expression of any of `texts`, each followed by its own expression. Common beginnings are shared: the sampler
    tries every open alternative against the whole vocabulary, and a thousand at once would cost seconds a token."""
    ordered = sorted(texts)
    if len(ordered) <= 4 or depth >= MAX_SHARING:
        return " | ".join(f"{literal(text)} {texts[text]}".strip() for text in ordered)
    out = []
    for _, group in groupby(ordered, key=lambda text: text[:1]):
        members = list(group)
        shared = commonprefix(members)
        if len(members) == 1 or not shared:
            out.append(f"{literal(members[0])} {texts[members[0]]}".strip())
        else:
            rest = branches({text[len(shared) :]: texts[text] for text in members}, depth + 1)
            out.append(f"{literal(shared)} ({rest})")
    return " | ".join(out)


def commonprefix(texts: Sequence[str]) -> str:
    """Longest common beginning of sorted texts."""
    first, last = texts[0], texts[-1]
    size = 0
    while size < min(len(first), len(last)) and first[size] == last[size]:
        size += 1
    return first[:size]


def json_text(value: object) -> str:
    """`value` as JSON text a model would write: not ASCII-escaped, except where the text could not be encoded."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value)
    return text


def until_rules(name: str, closer: str) -> str:
    """Rules named `name`: any text up to and with the first `closer`.

    A deterministic automaton over the prefixes of `closer` (its failure links), one rule a state, so that the sampler
    keeps one stack however long the text grows.
    """
    alphabet = sorted(set(closer))
    rules = []
    for state in range(len(closer)):
        branches = []
        for char in alphabet:
            after = _advance(closer, state, char)
            if after == len(closer):
                branches.append(literal(char))
            elif after:
                branches.append(f"{literal(char)} {name}-{after}")
        dead = [c for c in alphabet if _advance(closer, state, c) == 0]
        others = char_class(set(alphabet) - set(dead), negate=True)
        branches.append(f"{others} {name}")
        rules.append(f"{name if state == 0 else f'{name}-{state}'} ::= {' | '.join(branches)}")
    return "\n".join(rules)


def _advance(word: str, state: int, char: str) -> int:
    """Length of the longest prefix of `word` that ends `word[:state] + char`."""
    seen = word[:state] + char
    for size in range(min(len(seen), len(word)), 0, -1):
        if seen.endswith(word[:size]):
            return size
    return 0


class Rules:
    """A rule book: names bodies, shares equal bodies, bounds the total."""

    def __init__(self) -> None:
        self._bodies: dict[str, str] = {}
        self._by_body: dict[str, str] = {}
        self._numbers: dict[str, int] = {}
        self._size = 0

    def add(self, hint: str, body: str) -> str:
        """Name of a rule with this body; an equal rule is reused."""
        known = self._by_body.get(body)
        if known is not None:
            return known
        name = self.reserve(hint)
        self.define(name, body)
        self._by_body[body] = name
        return name

    def reserve(self, hint: str) -> str:
        """A fresh name, to be defined later (recursive rules)."""
        base = re.sub(r"[^a-zA-Z0-9]+", "-", hint)[:40].strip("-") or "rule"
        name = base
        while name in self._bodies:
            self._numbers[base] = self._numbers.get(base, 1) + 1
            name = f"{base}-{self._numbers[base]}"
        self._bodies[name] = ""
        return name

    def define(self, name: str, body: str) -> None:
        self._size += len(name) + len(body) + 6
        if self._size > MAX_GRAMMAR_CHARS:
            raise SchemaError(f"the grammar would be larger than {MAX_GRAMMAR_CHARS} characters")
        self._bodies[name] = body

    def mark(self) -> Rules:
        """A copy, to come back to."""
        copy = Rules()
        copy.restore(self)
        return copy

    def restore(self, mark: Rules) -> None:
        """Become what `mark` is, forgetting what was written since."""
        self._bodies, self._by_body = dict(mark._bodies), dict(mark._by_body)
        self._numbers, self._size = dict(mark._numbers), mark._size

    def grammar(self, body: str, patterns: Sequence[str] = (), tokens: Sequence[str] = ()) -> Grammar:
        """The grammar of `body`; lazy where there is something to trigger on."""
        self.define(self.reserve("root"), body)
        return Grammar(self.text(), "root", bool(patterns or tokens), tuple(patterns), tuple(tokens))

    def text(self) -> str:
        return "\n".join(f"{name} ::= {body}" for name, body in self._bodies.items())

    def space(self) -> str:
        return self._fixed("space", SPACE)

    def char(self) -> str:
        """One character inside a JSON string."""
        escape = r'"\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4})'
        return self._fixed("char", rf'[^"\\\x7F\x00-\x1F] | {escape}')

    def string(self) -> str:
        return self._fixed("string", rf'"\"" {self.char()}* "\""')

    def integer(self) -> str:
        return self._fixed("integer", '"-"? ("0" | [1-9] [0-9]{0,15})')

    def number(self) -> str:
        return self._fixed("number", '"-"? ("0" | [1-9] [0-9]{0,15}) ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,3})?')

    def boolean(self) -> str:
        return self._fixed("boolean", '"true" | "false"')

    def null(self) -> str:
        return self._fixed("null", '"null"')

    def any_value(self) -> str:
        if "value" not in self._bodies:
            self.reserve("value")
            scalars = f"{self.string()} | {self.number()} | {self.boolean()} | {self.null()}"
            self.define("value", f"{self.any_object()} | {self.any_array()} | {scalars}")
        return "value"

    def any_object(self) -> str:
        if "object" not in self._bodies:
            self.reserve("object")
            sp, value = self.space(), self.any_value()
            pair = self.add("pair", f'{self.string()} {sp} ":" {sp} {value}')
            self.define("object", f'"{{" {sp} ({pair} ({sp} "," {sp} {pair})* {sp})? "}}"')
        return "object"

    def any_array(self) -> str:
        if "array" not in self._bodies:
            self.reserve("array")
            sp, value = self.space(), self.any_value()
            self.define("array", f'"[" {sp} ({value} ({sp} "," {sp} {value})* {sp})? "]"')
        return "array"

    def _fixed(self, name: str, body: str) -> str:
        if name not in self._bodies:
            self.reserve(name)
            self.define(name, body)
        return name


def repeat(rules: Rules, hint: str, item: str, low: int, high: int | None) -> str:
    """`item` between `low` and `high` times (None: no upper limit), exactly, with few rules however large the counts.

    The sampler's parser unrolls `{m,n}` into n rules and refuses 2,000; above MAX_UNROLLED the count is therefore
    written as blocks of about √n items followed by a remainder, which keeps the number of live stacks small too.
    """
    must = _exactly(rules, hint, item, low)
    if high is None:
        return f"{must} {item}*".strip()
    return f"{must} {_at_most(rules, hint, item, high - low)}".strip()


def _exactly(rules: Rules, hint: str, item: str, count: int) -> str:
    if count == 0:
        return ""
    if count <= MAX_UNROLLED:
        return item if count == 1 else f"{item}{{{count}}}"
    size = _block_size(count)
    block = rules.add(f"{hint}-block", f"{item}{{{size}}}")
    rest = _exactly(rules, hint, item, count % size)
    return f"{block}{{{count // size}}} {rest}".strip()


def _at_most(rules: Rules, hint: str, item: str, count: int) -> str:
    if count == 0:
        return ""
    if count <= MAX_UNROLLED:
        return f"{item}?" if count == 1 else f"{item}{{0,{count}}}"
    size = _block_size(count)
    block = rules.add(f"{hint}-block", f"{item}{{{size}}}")
    blocks, rest = divmod(count, size)
    last = _at_most(rules, hint, item, rest)
    # Fewer than all blocks, then less than one block more; or all blocks, then at most the remainder.
    return f"({block}{{0,{blocks - 1}}} {item}{{0,{size - 1}}} | {block}{{{blocks}}} {last})"


def _block_size(count: int) -> int:
    return max(2, math.isqrt(count))
