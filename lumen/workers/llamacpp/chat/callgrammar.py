"""Grammar rules of tool calls, and the patterns at which a lazy grammar begins to bind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lumen.workers.llamacpp.chat.gbnf import Rules, branches, json_text, literal
from lumen.workers.llamacpp.chat.schema import arguments_rule

#: The white space of `gbnf.SPACE` as a regular expression, for trigger patterns.
BLANKS = r"(?: |\n\n?[ \t]{0,20})?"

#: Where unmarked JSON may be a call: at the beginning of the answer, or behind its reasoning.
BEGINNING = r"(?:^|</think>)\s*"


def call_rule(rules: Rules, functions: Sequence[dict[str, Any]], key: str) -> str:
    """Rule of `{"name": <one of functions>, <key>: <its arguments>}`. Raises BadSchema."""
    sp = rules.space()
    colon = f'{sp} ":" {sp}'
    before = rules.add("arguments-key", f'{sp} "," {sp} {literal(json_text(key))} {colon}')
    body = branches(
        {
            json_text(str(function.get("name", ""))): f"{before} {arguments_rule(rules, function)}"
            for function in functions
        }
    )
    return rules.add("call", f'"{{" {sp} "\\"name\\"" {colon} ({body}) {sp} "}}"')


def series(rules: Rules, item: str, separator: str, parallel: bool) -> str:
    """One `item`, or where calls may be parallel several with `separator` between."""
    return f"{item} ({separator} {item})*" if parallel else item


def trigger(opener: str, head: Sequence[str], before: str = "") -> str:
    """A pattern whose first group begins with `opener` (a regular expression) and that matches only where the text
    ends inside `head` (texts, blanks allowed before each): whatever a token carried beyond the opener is then text the
    grammar accepts. `before` is matched ahead of the group."""
    tail = ""
    for word in reversed(head):
        for char in reversed(word):
            tail = f"(?:{escape(char)}{tail})?"
        tail = BLANKS + tail
    return f"{before}({opener}{tail})(?![\\s\\S])"


def escape(text: str) -> str:
    """`text` as an ECMAScript regular expression that matches it."""
    return "".join(c if c.isalnum() or ord(c) > 0x7F else f"\\x{ord(c):02x}" for c in text)


def named_opener(functions: Sequence[dict[str, Any]]) -> str:
    """Regular expression of `{"name": "<one of functions>"`: JSON that is a call beyond doubt."""
    names = "|".join(escape(json_text(str(function.get("name", "")))) for function in functions)
    return rf'\{{{BLANKS}"name"{BLANKS}:{BLANKS}(?:{names})'
