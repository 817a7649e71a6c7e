"""Durations, sizes and shares as people write them. Pure; `parse_…(format_…(x)) == x` for every value."""

from __future__ import annotations

import re
from fractions import Fraction

_SECONDS = {
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "m": Fraction(60),
    "h": Fraction(3600),
    "d": Fraction(86400),
}
_BYTES = {
    "": 1,
    "b": 1,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "tb": 1000**4,
    "kib": 1024,
    "mib": 1024**2,
    "gib": 1024**3,
    "tib": 1024**4,
}
_NUMBER = r"\d{1,19}(?:\.\d{1,18})?"
_DURATION = re.compile(rf"(?:{_NUMBER}\s*(?:ms|s|m|h|d)\s*)+", re.ASCII)
_DURATION_PART = re.compile(rf"({_NUMBER})\s*(ms|s|m|h|d)", re.ASCII)
_PLAIN = re.compile(r"\d{1,18}(?:\.\d{1,30})?(?:e[+-]?\d{1,3})?", re.ASCII | re.IGNORECASE)
_SIZE = re.compile(rf"({_NUMBER})\s*([A-Za-z]{{0,3}})", re.ASCII)
# Beyond this a float of seconds is no longer exact to the millisecond, and no wait is that long.
_LONGEST = 1e12
_LARGEST = 2**63 - 1
_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,12})?|\.\d{1,12})\s*(%?)", re.ASCII)


def parse_duration(written: str | int | float) -> float:
    """Seconds from `300ms`, `1.5s`, `2m`, `1h30m`, `30d`, or a plain number of seconds.

    Raises:
        ValueError: not a duration, negative, or not finite; the message says what to write.
    """
    if isinstance(written, bool):
        raise ValueError("expected a duration such as 300ms, 5s or 2m")
    if isinstance(written, (int, float)):
        return _seconds(written)
    text = written.strip()
    if _PLAIN.fullmatch(text):
        return _seconds(float(text))
    if not _DURATION.fullmatch(text):
        raise ValueError("expected a duration such as 300ms, 5s, 2m or 1h30m")
    # Summed as fractions: 0.1s + 0.2s is 300ms, not 0.30000000000000004.
    parts = _DURATION_PART.findall(text)
    total = sum((Fraction(number) * _SECONDS[unit] for number, unit in parts), Fraction())
    return _seconds(float(total))


def _seconds(value: int | float) -> float:
    # Written so that NaN fails it too.
    if not 0 <= value <= _LONGEST:
        raise ValueError("a duration is not negative and not endless")
    return float(value)


def format_duration(seconds: float) -> str:
    """The shortest of `2m`, `1.5s`, `300ms` … that reads back as exactly `seconds`."""
    for unit in ("d", "h", "m", "s", "ms"):
        count = Fraction(seconds) / _SECONDS[unit]
        if count.denominator == 1 and (count >= 1 or unit == "s"):
            return f"{count.numerator}{unit}"
    milliseconds = round(seconds * 1000)
    if milliseconds and milliseconds / 1000 == seconds:
        return f"{milliseconds}ms"
    return repr(float(seconds))


def parse_size(written: str | int) -> int:
    """Bytes from `32MiB`, `1.5GB`, `512 kB`, or a plain number of bytes. `k` alone is refused as ambiguous.

    Raises:
        ValueError: not a size, negative, or not a whole number of bytes; the message says what to write.
    """
    if isinstance(written, bool):
        raise ValueError("expected a size such as 32MiB or 10MB")
    if isinstance(written, int):
        if not 0 <= written <= _LARGEST:
            raise ValueError("a size is between 0 and 8 EiB")
        return written
    found = _SIZE.fullmatch(written.strip())
    factor = _BYTES.get(found[2].lower()) if found else None
    if found is None or factor is None:
        raise ValueError("expected a size such as 32MiB, 10MB or a number of bytes")
    count = Fraction(found[1]) * factor
    if count.denominator != 1 or count > _LARGEST:
        raise ValueError("a size is a whole number of bytes below 8 EiB")
    return count.numerator


def format_size(count: int) -> str:
    """The shortest of `32MiB`, `10MB`, `1234` that reads back as exactly `count` bytes."""
    for unit in ("TiB", "TB", "GiB", "GB", "MiB", "MB", "KiB", "kB"):
        factor = _BYTES[unit.lower()]
        if count and count % factor == 0:
            return f"{count // factor}{unit}"
    return str(count)


def parse_share(written: str | int | float) -> float:
    """A number in [0, 1] from `1%` or `0.01`.

    Raises:
        ValueError: not a share; the message says what to write.
    """
    found = None if isinstance(written, bool) else _SHARE.fullmatch(str(written).strip())
    share = Fraction(found[1]) / (100 if found[2] else 1) if found else Fraction(-1)
    if not 0 <= share <= 1:
        raise ValueError("expected a share such as 1% or 0.01")
    return float(share)


def format_share(share: float) -> str:
    """`1%`, `0.5%`: as `parse_share` reads it back exactly, else the number itself."""
    text = f"{100 * share:.10g}%"
    return text if parse_share(text) == share else repr(share)
