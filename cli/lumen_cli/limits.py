"""Limits and settings as they are written on the command line, and read back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import typer

from lumen_cli.errors import USAGE, CliError

# Lifts a limit that is set.
NONE = "none"

CREDIT: str | None = typer.Option(None, metavar="AMOUNT", help="Money for all time, such as 5usd; `none` lifts it.")
DAILY: str | None = typer.Option(None, metavar="AMOUNT", help="Money a day of UTC.")
MONTHLY: str | None = typer.Option(None, metavar="AMOUNT", help="Money a month of UTC.")
PER_MINUTE: str | None = typer.Option(None, metavar="AMOUNT", help="Money a minute.")
MAX_REQUEST: str | None = typer.Option(None, metavar="AMOUNT", help="What one request may cost, such as 0.05usd.")
RPM: str | None = typer.Option(None, metavar="COUNT", help="Requests a minute.")
TPM: str | None = typer.Option(None, metavar="COUNT", help="Tokens a minute, such as 100k.")
CONCURRENCY: str | None = typer.Option(None, metavar="COUNT", help="Requests at once.")

_COUNT = re.compile(r"(\d{1,12})([km]?)", re.IGNORECASE | re.ASCII)
_FACTOR = {"": 1, "k": 1000, "m": 1_000_000}
AMOUNTS = ("max_request", "per_minute", "daily", "monthly", "credit")
COUNTS = ("rpm", "tpm", "concurrency")


def given(values: Mapping[str, str | None]) -> dict[str, int | None]:
    """What a key's flags set, in pico-dollars and counts; `None` for a limit that is lifted. Unset flags are left out.

    Raises:
        CliError: not an amount or a count.
    """
    return {name: _value(name, text) for name, text in values.items() if text is not None}


def _value(name: str, text: str) -> int | None:
    if text.strip().lower() == NONE:
        return None
    return checked(name, text, count if name in COUNTS else _amount)


def checked(name: str, text: str, read: Callable[[str], int]) -> int:
    """What `read` makes of a flag's text.

    Raises:
        CliError: it refuses it.
    """
    try:
        return read(text)
    except ValueError as error:
        raise CliError(
            f"--{name.replace('_', '-')} {text}: {error}", f"or write {NONE} to lift it", code=USAGE
        ) from None


def share(name: str, text: str) -> str | float:
    """A share as it is written to the configuration: `1%` as it stands, `0.01` as a number.

    Raises:
        CliError: it is none.
    """
    from lumen.config.units import parse_share

    try:
        value = parse_share(text)
    except ValueError as error:
        raise CliError(f"--{name.replace('_', '-')} {text}: {error}", "write for example 1%", code=USAGE) from None
    return text.strip() if "%" in text else value


def pair(text: str) -> tuple[str, str]:
    """`NAME=VALUE` in its two parts.

    Raises:
        CliError: it is none.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise CliError(f"{text!r} is not NAME=VALUE", "write for example temperature=0.7", code=USAGE)
    return key.strip(), value.strip()


def value(text: str) -> Any:
    """JSON where it is JSON (numbers, true, lists), text otherwise; nothing at all means: remove it."""
    if not text:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text


def count(text: str) -> int:
    """`60`, `100k` or `1M` as a number.

    Raises:
        ValueError: it is none.
    """
    found = _COUNT.fullmatch(text.strip())
    if found is None:
        raise ValueError("expected a number such as 60, 100k or 1M")
    return int(found[1]) * _FACTOR[found[2].lower()]


def _amount(text: str) -> int:
    from lumen.core.money import parse_amount

    return parse_amount(text)


def written(limits: Mapping[str, Any]) -> dict[str, Any]:
    """Limits that are set, as they are written: `{"daily": "20usd", "rpm": 60}`."""
    from lumen.core.money import format_amount, format_rate

    def one(name: str, value: Any) -> Any:
        if isinstance(value, int) and name == "max_cost":
            return format_rate(value)
        return format_amount(value) if isinstance(value, int) and name in AMOUNTS else value

    return {name: one(name, value) for name, value in limits.items() if value is not None}


def shown(limits: Mapping[str, Any]) -> str:
    """Limits in one cell of a table."""
    words = {"max_cost": "a token", "max_request": "a request", "per_minute": "a minute", "daily": "a day",
             "monthly": "a month", "credit": "in all", "concurrency": "at once"}  # fmt: skip
    return ", ".join(f"{value} {words.get(name, name)}" for name, value in written(limits).items())
