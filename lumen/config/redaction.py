"""What is left out of kept payloads: JSON paths and regular expressions, applied before anything is written. Pure.

What is told token by token (log probabilities, token ids) cannot be looked through for a text that several of them make
up, so wherever there is a regular expression it goes as a whole.

A path is `$` and steps: `.name`, `[0]`, `[*]` or `.*` for all, `..name` for that name at any depth. Everything at it is
replaced as a whole. A regular expression stands between slashes and is looked for in every text, names included.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

REDACTED = "[redacted]"
_STEP = re.compile(r"\.\.([A-Za-z0-9_-]+)|\.([A-Za-z0-9_-]+|\*)|\[(\d{1,6}|\*)\]")
_LONGEST = 500
_TOKENS = frozenset(("logprobs", "top_logprobs", "token_ids", "prompt_token_ids", "prompt_logprobs", "tokens"))
_PROMPTS = ("prompt", "input")


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a path: a name, a position, or (`None`) all of them; `deep`: here or at any depth below."""

    to: str | int | None
    deep: bool = False


@dataclass(frozen=True, slots=True)
class Path:
    steps: tuple[Step, ...]


Rule = Path | re.Pattern[str]


def redaction(text: str) -> Rule:
    """A rule as the configuration writes it.

    Raises:
        ValueError: neither a path nor a regular expression.
    """
    if len(text) > _LONGEST:
        raise ValueError(f"longer than {_LONGEST} characters")
    if len(text) > 2 and text[0] == text[-1] == "/":
        try:
            return re.compile(text[1:-1])
        except re.error as error:
            raise ValueError(f"not a regular expression ({error})") from None
    if not text.startswith("$") or len(text) == 1:
        raise ValueError("expected a path such as $.messages[*].content, or a regular expression as in /[0-9]{16}/")
    steps, at = [], 1
    while at < len(text):
        found = _STEP.match(text, at)
        if found is None:
            raise ValueError(f"this is no path from {text[at : at + 20]!r} on")
        deep, name, position = found.groups()
        if deep is not None:
            steps.append(Step(deep, deep=True))
        elif position is not None:
            steps.append(Step(None if position == "*" else int(position)))
        else:
            steps.append(Step(None if name == "*" else name))
        at = found.end()
    return Path(tuple(steps))


def redact(value: Any, rules: Sequence[Rule]) -> Any:
    """A copy of a JSON value without what the rules name."""
    for rule in rules:
        value = _at(value, rule.steps) if isinstance(rule, Path) else _without(value, rule)
    return value


def _at(value: Any, steps: tuple[Step, ...]) -> Any:
    if not steps:
        return REDACTED
    step, rest = steps[0], steps[1:]
    if isinstance(value, dict):
        return {name: _inside(name, item, step, steps, rest) for name, item in value.items()}
    if isinstance(value, list):
        return [_inside(at, item, step, steps, rest) for at, item in enumerate(value)]
    return value


def _inside(at: str | int, item: Any, step: Step, steps: tuple[Step, ...], rest: tuple[Step, ...]) -> Any:
    if step.to is None or (type(step.to) is type(at) and step.to == at):
        return _at(item, rest)
    return _at(item, steps) if step.deep else item


def _without(value: Any, pattern: re.Pattern[str]) -> Any:
    if isinstance(value, str):
        return pattern.sub(REDACTED, value)
    if isinstance(value, list):
        return [_without(item, pattern) for item in value]
    if isinstance(value, dict):
        return {_without(name, pattern): _field(name, item, pattern) for name, item in value.items()}
    return value


def _field(name: str, item: Any, pattern: re.Pattern[str]) -> Any:
    if name in _TOKENS and isinstance(item, list | dict) and item:
        return REDACTED
    if name in _PROMPTS and _of_tokens(item):
        return REDACTED
    return _without(item, pattern)


def _of_tokens(item: Any) -> bool:
    """Whether a prompt is token ids, or a list of such prompts."""
    if not isinstance(item, list) or not item:
        return False
    return any(type(one) is int or _of_tokens(one) for one in item)
