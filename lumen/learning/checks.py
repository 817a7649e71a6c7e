"""Checkers that an operator supplies: what they are written as, and what each says of an answer. Pure but for loading.

| written | an answer is good if |
| --- | --- |
| `exact` | it says what the incumbent's answer says, white space aside |
| `exact:TEXT` | it says TEXT, white space aside |
| `regex:PATTERN` | the pattern is found in it |
| `schema:FILE` | it is JSON that fits the schema in the file |
| `python:FILE` or `python:FILE:FUNCTION` | `check(request, answer)` returns true, or how good it is from 0 to 1 |
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lumen.learning.schema import fits, problem

KINDS = ("exact", "regex", "schema", "python")
_FENCED = re.compile(r"\A\s*```(?:json)?\s*\n(.*)\n```\s*\Z", re.S)
_MOST = 1024 * 1024
# (request, answer, the incumbent's answer) → 0 to 1.
Check = Callable[[str, str, str], float]


class CheckerError(ValueError):
    """It is written wrongly, or cannot be loaded."""


def split(written: str) -> tuple[str, str]:
    """Kind and rest of a checker as an operator writes it.

    Raises:
        CheckerError: it is none.
    """
    kind, _, rest = written.partition(":")
    if kind not in KINDS or (kind != "exact" and not rest):
        raise CheckerError(f"'{written}' is no checker; write exact, exact:TEXT, regex:…, schema:FILE or python:FILE")
    return kind, rest


def load(written: str) -> Check:
    """The checker. Reads the file it names and, for Python, runs it: call it in a process of its own.

    Raises:
        CheckerError: it cannot be used.
    """
    kind, rest = split(written)
    if kind == "exact":
        return lambda request, answer, incumbent: float(_plain(answer) == _plain(rest or incumbent))
    if kind == "regex":
        try:
            pattern = re.compile(rest, re.S)
        except re.error as error:
            raise CheckerError(f"this is no regular expression: {error}") from None
        return lambda request, answer, incumbent: float(pattern.search(answer) is not None)
    return _schema(Path(rest)) if kind == "schema" else _python(rest)


def _plain(text: str) -> str:
    return " ".join(text.split())


def _schema(path: Path) -> Check:
    text = _read(path)
    try:
        schema = json.loads(text)
    except ValueError:
        raise CheckerError(f"{path.name} is not JSON") from None
    if (why := problem(schema)) is not None:
        raise CheckerError(f"{path.name}: {why}")

    def check(request: str, answer: str, incumbent: str) -> float:
        fenced = _FENCED.match(answer)
        try:
            return float(fits(json.loads(fenced[1] if fenced else answer), schema))
        except (ValueError, RecursionError):
            return 0.0

    return check


def _python(rest: str) -> Check:
    name, colon, function = rest.rpartition(":")
    path = Path(name if colon else rest)
    space: dict[str, Any] = {"__name__": "checker", "__file__": str(path)}
    try:
        # The operator's own program, which they asked for.
        exec(compile(_read(path), path.name, "exec"), space)
    except Exception as error:  # noqa: BLE001 - whatever it raises is its author's to know
        raise CheckerError(f"{path.name} cannot be run: {type(error).__name__}: {error}") from None
    found = space.get(function if colon else "check")
    if not callable(found):
        raise CheckerError(f"{path.name} has no function '{function if colon else 'check'}'")

    def check(request: str, answer: str, incumbent: str) -> float:
        return min(max(float(found(request, answer)), 0.0), 1.0)

    return check


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > _MOST:
            raise CheckerError(f"{path.name} is too large for a checker")
        return path.read_text()
    except OSError as error:
        raise CheckerError(f"{path.name} cannot be read: {error.strerror}") from None
