"""Strings and numbers of JSON schemas in GBNF."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

from lumen.workers.llamacpp.chat.gbnf import Rules, SchemaError, repeat
from lumen.workers.llamacpp.chat.numeric import integer_range, number_range
from lumen.workers.llamacpp.chat.pattern import BrokenPattern, pattern_rule

MAX_LENGTH = 100_000

_DATE = '[0-9]{4} "-" ("0" [1-9] | "1" [0-2]) "-" ("0" [1-9] | [12] [0-9] | "3" [01])'
_TIME = (
    '([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9] ("." [0-9]{1,9})? '
    '("Z" | [+\\x2d] ([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9])'
)
_HEX = "[0-9a-fA-F]"
_OCTET = '("25" [0-5] | "2" [0-4] [0-9] | "1" [0-9]{2} | [1-9]? [0-9])'
_FORMATS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f'{_DATE} "T" {_TIME}',
    "uuid": f'{_HEX}{{8}} "-" {_HEX}{{4}} "-" {_HEX}{{4}} "-" {_HEX}{{4}} "-" {_HEX}{{12}}',
    "ipv4": f'{_OCTET} "." {_OCTET} "." {_OCTET} "." {_OCTET}',
}


def string_body(rules: Rules, core: dict[str, Any], hint: str, strict: bool) -> str | None:
    """Body of a string rule; None where any string will do. Raises SchemaError.

    A pattern outside the supported subset is refused in strict mode and left to the model otherwise. One that is no
    regular expression at all is refused.
    """
    low, high = _lengths(core)
    pattern = core.get("pattern")
    bounded = low > 0 or high is not None
    if pattern is not None:
        if not isinstance(pattern, str):
            raise SchemaError("pattern must be a string")
        if strict and bounded:
            raise SchemaError("pattern together with minLength or maxLength cannot be enforced in strict mode")
        try:
            return pattern_rule(rules, pattern)
        except BrokenPattern:
            raise
        except SchemaError:
            if strict:
                raise
    form = _FORMATS.get(core["format"]) if isinstance(core.get("format"), str) else None
    if form is not None:
        return f'"\\"" {form} "\\""'
    if not bounded:
        return None
    return f'"\\"" {repeat(rules, hint, rules.char(), low, high)} "\\""'


def _lengths(core: dict[str, Any]) -> tuple[int, int | None]:
    low, high = core.get("minLength", 0), core.get("maxLength")
    for name, value in (("minLength", low), ("maxLength", 0 if high is None else high)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise SchemaError(f"{name} must be a whole number, zero or more")
    if low > MAX_LENGTH:
        raise SchemaError(f"minLength may be {MAX_LENGTH:,} at most")
    if high is not None and low > high:
        raise SchemaError("minLength is larger than maxLength")
    # A longer limit than this binds no answer in practice.
    return low, None if high is None or high > MAX_LENGTH else high


def number_body(core: dict[str, Any], whole: bool) -> str | None:
    """Body of a number rule; None where it is unbounded. Raises SchemaError."""
    low, above = _bound(core, "minimum", "exclusiveMinimum", max)
    high, below = _bound(core, "maximum", "exclusiveMaximum", min)
    if low is None and high is None:
        return None
    if not whole:
        return number_range(low, high, above, below)
    first = None if low is None else _ceil(low, above)
    last = None if high is None else -_ceil(-high, below)
    return integer_range(first, last)


def _ceil(value: Decimal, beyond: bool) -> int:
    """The least whole number not below `value` (above it where `beyond`)."""
    floor = int(value // 1) if value >= 0 or value == int(value) else int(value) - 1
    return floor if floor == value and not beyond else floor + 1


def _bound(core: dict[str, Any], keyword: str, exclusive: str, tighter: Any) -> tuple[Decimal | None, bool]:
    """A bound and whether it is left out. Draft 4 wrote the exclusive keyword as a boolean."""
    value, edge = _number(core, keyword), core.get(exclusive)
    if isinstance(edge, bool):
        return value, edge and value is not None
    limit = _number(core, exclusive)
    if value is None or limit is None:
        return (limit, True) if limit is not None else (value, False)
    return (limit, True) if tighter(value, limit) == limit else (value, False)


def _number(core: dict[str, Any], keyword: str) -> Decimal | None:
    value = core.get(keyword)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise SchemaError(f"{keyword} must be a number")
    try:
        number = Decimal(str(value))
    except (InvalidOperation, ValueError):
        number = Decimal("NaN")
    if not number.is_finite() or abs(number) >= 10**16 or (number and abs(number) < Decimal("1e-16")):
        raise SchemaError(f"{keyword} has more than 16 digits")
    return number
