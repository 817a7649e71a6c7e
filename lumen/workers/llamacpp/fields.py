"""PURE: checked reading of a JSON request body. Every refusal names the field."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from lumen.workers.llamacpp.errors import bad

_MAX_INT = (1 << 63) - 1


def decode_body(data: bytes) -> dict[str, Any]:
    """The JSON object in `data`. Raises `ApiError` 400 for anything else."""
    try:
        body = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise bad(f"The request body is not valid JSON: {error}") from None
    except RecursionError:
        raise bad("The request body is nested too deeply.") from None
    if not isinstance(body, dict):
        raise bad("The request body must be a JSON object.")
    return body


class Fields:
    """Typed access to one body. An absent or null field gives the default."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self.body = body

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.body.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise bad(f"'{name}' must be a boolean.", name)
        return value

    def integer(self, name: str, low: int, high: int = _MAX_INT) -> int | None:
        value = self.body.get(name)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise bad(f"'{name}' must be an integer.", name)
        if not low <= value <= high:
            raise bad(f"'{name}' must lie between {low} and {high}.", name)
        return value

    def number(self, name: str, default: float, low: float, high: float) -> float:
        value = self.body.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise bad(f"'{name}' must be a number.", name)
        if not low <= value <= high:
            raise bad(f"'{name}' must lie between {low:g} and {high:g}.", name)
        return float(value)

    def text(self, name: str, limit: int = 1024) -> str | None:
        value = self.body.get(name)
        if value is None:
            return None
        if not isinstance(value, str) or len(value) > limit:
            raise bad(f"'{name}' must be a string of at most {limit} characters.", name)
        return value

    def mapping(self, name: str) -> dict[str, Any] | None:
        value = self.body.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise bad(f"'{name}' must be an object.", name)
        return value

    def strings(self, name: str, most: int, limit: int) -> tuple[str, ...]:
        """A string or a list of at most `most` strings of at most `limit` characters; empty ones are dropped."""
        value = self.body.get(name)
        if value is None:
            return ()
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list) or len(items) > most:
            raise bad(f"'{name}' must be a string or a list of at most {most} strings.", name)
        for item in items:
            if not isinstance(item, str) or len(item) > limit:
                raise bad(f"'{name}' must hold strings of at most {limit} characters.", name)
        return tuple(item for item in items if item)

    def token_ids(self, name: str, vocabulary: int) -> list[int] | None:
        """A list of ids below `vocabulary`."""
        value = self.body.get(name)
        return None if value is None else check_ids(value, name, vocabulary)


def check_ids(value: object, param: str, vocabulary: int) -> list[int]:
    """`value` as a list of token ids, each below `vocabulary`. Raises `ApiError` 400."""
    if not isinstance(value, list):
        raise bad(f"'{param}' must be a list of token ids.", param)
    for token in value:
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < vocabulary:
            raise bad(f"'{param}' must hold token ids between 0 and {vocabulary - 1}.", param)
    return value
