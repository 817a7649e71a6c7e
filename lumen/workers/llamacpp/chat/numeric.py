"""Bounded numbers as GBNF expressions."""

from __future__ import annotations

from decimal import Decimal

from lumen.workers.llamacpp.chat.gbnf import SchemaError, literal

#: Digits of the largest whole number written, and of the longest fraction.
MAX_DIGITS = 16


def integer_range(low: int | None, high: int | None) -> str:
    """Whole numbers from `low` to `high`, both included (None: unbounded, up to MAX_DIGITS digits)."""
    if low is not None and high is not None and low > high:
        raise SchemaError(f"no whole number lies between {low} and {high}")
    limit = 10**MAX_DIGITS - 1
    low = -limit if low is None else _within(low)
    high = limit if high is None else _within(high)
    parts = []
    if low < 0:
        parts += [f'"-" {_group(_natural(max(1, -high), -low))}']
    if high >= 0:
        parts += _natural(max(0, low), high)
    return " | ".join(parts)


def number_range(low: Decimal | None, high: Decimal | None, above: bool, below: bool) -> str:
    """Decimal numbers from `low` to `high`, without exponents; `above`/`below` leave out the bound itself."""
    if low is not None and high is not None and (low > high or (low == high and (above or below))):
        raise SchemaError(f"no number lies between {low} and {high}")
    limit = Decimal(10**MAX_DIGITS - 1)
    low, above = (-limit, False) if low is None else (low, above)
    high, below = (limit, False) if high is None else (high, below)
    _within(int(low))
    _within(int(high))
    parts = []
    if low < 0:
        top = max(Decimal(0), -high)
        strict = high <= 0 and below
        parts.append(f'"-" {_group(_positive(top, -low, strict or top == 0, above))}')
    if high > 0 or (high == 0 and not below):
        parts += _positive(max(Decimal(0), low), high, above and low >= 0, below)
    return " | ".join(part for part in parts if part)


def _within(value: int) -> int:
    if abs(value) >= 10**MAX_DIGITS:
        raise SchemaError(f"the bound {value:.0e} has more than {MAX_DIGITS} digits")
    return value


def _group(parts: list[str]) -> str:
    return f"({' | '.join(parts)})"


def _natural(low: int, high: int) -> list[str]:
    """Alternatives for low..high (both >= 0), one run of equal length at a time."""
    parts = []
    for digits in range(len(str(low)), len(str(high)) + 1):
        first = max(low, 10 ** (digits - 1) if digits > 1 else 0)
        last = min(high, 10**digits - 1)
        parts.append(_same_length(str(first), str(last)))
    return parts


def _same_length(low: str, high: str) -> str:
    """Digit strings between two of the same length."""
    if not low:
        return ""
    if low[0] == high[0]:
        return f"{literal(low[0])} {_same_length(low[1:], high[1:])}".strip()
    rest = len(low) - 1
    first, last = int(low[0]), int(high[0])
    parts = []
    if low[1:] != "0" * rest:
        parts.append(f"{literal(low[0])} {_same_length(low[1:], '9' * rest)}")
        first += 1
    top = ""
    if high[1:] != "9" * rest:
        top = f"{literal(high[0])} {_same_length('0' * rest, high[1:])}"
        last -= 1
    if first <= last:
        parts.append(f"{_digit(first, last)}{f' [0-9]{{{rest}}}' if rest else ''}")
    if top:
        parts.append(top)
    return parts[0] if len(parts) == 1 else _group(parts)


def _digit(first: int, last: int) -> str:
    return f"[{first}]" if first == last else f"[{first}-{last}]"


def _positive(low: Decimal, high: Decimal, above: bool, below: bool) -> list[str]:
    """Alternatives for decimals low..high (both >= 0)."""
    floor_low, floor_high = int(low), int(high)
    fraction_low, fraction_high = _fraction(low), _fraction(high)
    if floor_low == floor_high:
        inner = _between(fraction_low, fraction_high, above, below)
        return [f"{literal(str(floor_low))} {inner}".strip()] if inner is not None else []
    parts = []
    at_low = _at_least(fraction_low, above)
    parts.append(f"{literal(str(floor_low))} {_point(at_low, fraction_low == '' and not above)}")
    if floor_high - floor_low > 1:
        parts += [f"{_group(_natural(floor_low + 1, floor_high - 1))} {_point('[0-9]{1,16}', True)}"]
    if not (fraction_high == "" and below):
        at_high = _at_most(fraction_high, below)
        parts.append(f"{literal(str(floor_high))} {_point(at_high, True)}")
    return parts


def _fraction(value: Decimal) -> str:
    digits = format(value % 1, "f").partition(".")[2].rstrip("0")
    if len(digits) > MAX_DIGITS:
        raise SchemaError(f"the bound has more than {MAX_DIGITS} decimal places")
    return digits


def _point(digits: str, optional: bool) -> str:
    return f'("." ({digits})){"?" if optional else ""}'


def _at_least(digits: str, above: bool) -> str:
    """Fractions (after the point, at least one digit) not below `digits`."""
    if not digits:
        return "[0]{0,15} [1-9] [0-9]{0,15}" if above else "[0-9]{1,16}"
    return _floor(digits, above)


def _floor(digits: str, above: bool) -> str:
    head, rest = int(digits[0]), digits[1:]
    parts = [f"{_digit(head + 1, 9)} [0-9]{{0,15}}"] if head < 9 else []
    if rest:
        parts.append(f"{literal(digits[0])} {_floor(rest, above)}")
    elif above:
        parts.append(f"{literal(digits[0])} [0]{{0,15}} [1-9] [0-9]{{0,15}}")
    else:
        parts.append(f"{literal(digits[0])} [0-9]{{0,15}}")
    return _group(parts)


def _at_most(digits: str, below: bool) -> str:
    """Fractions (at least one digit) not above `digits`."""
    return _ceiling(digits, below) if digits else "[0]{1,16}"


def _ceiling(digits: str, below: bool) -> str:
    head, rest = int(digits[0]), digits[1:]
    parts = [f"{_digit(0, head - 1)} [0-9]{{0,15}}"] if head else []
    if rest:
        parts.append(f"{literal(digits[0])} ({_ceiling(rest, below)})?")
    elif not below:
        parts.append(f"{literal(digits[0])} [0]{{0,15}}")
    return _group(parts)


def _between(low: str, high: str, above: bool, below: bool) -> str | None:
    """What may follow a whole part shared by both bounds; None where nothing may."""
    if low == high:
        return None if above or below else f"{literal('.' + low)}" if low else '("." [0]{1,16})?'
    if not low:
        point = _point(_at_most(high, below), not above)
        return point if not above else f'"." ({_strictly_positive(high, below)})'
    return f'"." ({_window(low, high, above, below)})'


def _strictly_positive(high: str, below: bool) -> str:
    """Fractions above zero and not above `high`: zeros, then a digit that keeps below."""
    zeros = len(high) - len(high.lstrip("0"))
    deeper = f"{literal('0' * (zeros + 1))} [0]{{0,15}} [1-9] [0-9]{{0,15}}"
    head = f"{literal('0' * zeros)} " if zeros else ""
    rest = high[zeros:]
    parts = [deeper]
    lead, tail = int(rest[0]), rest[1:]
    if lead > 1:
        parts.append(f"{head}{_digit(1, lead - 1)} [0-9]{{0,15}}")
    if tail:
        parts.append(f"{head}{literal(rest[0])} ({_ceiling(tail, below)})?")
    elif not below:
        parts.append(f"{head}{literal(rest[0])} [0]{{0,15}}")
    return " | ".join(parts)


def _window(low: str, high: str, above: bool, below: bool) -> str:
    """Fractions between two different ones, `low` not empty."""
    first, last = int(low[0]), int(high[0])
    if first == last:
        low_rest, high_rest = low[1:], high[1:]
        if not low_rest:
            inner = _strictly_positive(high_rest, below) if above else _ceiling(high_rest, below)
            return f"{literal(low[0])} ({inner}){'' if above else '?'}"
        return f"{literal(low[0])} ({_window(low_rest, high_rest, above, below)})"
    parts = [f"{literal(low[0])} {_low_rest(low[1:], above)}"]
    if last - first > 1:
        parts.append(f"{_digit(first + 1, last - 1)} [0-9]{{0,15}}")
    if high[1:]:
        parts.append(f"{literal(high[0])} ({_ceiling(high[1:], below)})?")
    elif not below:
        parts.append(f"{literal(high[0])} [0]{{0,15}}")
    return " | ".join(parts)


def _low_rest(rest: str, above: bool) -> str:
    if rest:
        return _floor(rest, above)
    return "[0]{0,15} [1-9] [0-9]{0,15}" if above else "[0-9]{0,15}"
