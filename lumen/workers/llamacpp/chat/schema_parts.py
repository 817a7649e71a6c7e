"""Readings of single keywords of JSON schemas. All raise SchemaError."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lumen.workers.llamacpp.chat.gbnf import SchemaError
from lumen.workers.llamacpp.chat.schema_merge import ANNOTATIONS

MAX_ITEMS = 10_000

_OBJECT_KEYS = frozenset({"properties", "required", "additionalProperties", "minProperties", "maxProperties"})
_ARRAY_KEYS = frozenset({"items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains"})
_STRING_KEYS = frozenset({"pattern", "minLength", "maxLength", "format"})
_NUMBER_KEYS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})


def schemas(value: Any, keyword: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise SchemaError(f"{keyword} must be a list of at least one schema")
    return value


def literals_first(branches: Sequence[Any]) -> list[Any]:
    """Branches that are single values (a common way to describe each value of an enumeration) made one enumeration."""
    values: list[Any] = []
    others: list[Any] = []
    for branch in branches:
        keys = branch.keys() - ANNOTATIONS - {"type"} if isinstance(branch, dict) else set()
        if keys == {"const"}:
            values.append(branch["const"])
        elif keys == {"enum"} and isinstance(branch["enum"], list):
            values += branch["enum"]
        else:
            others.append(branch)
    return [{"enum": values}, *others] if values else others


def inferred(core: dict[str, Any]) -> str | None:
    for kind, keys in (
        ("object", _OBJECT_KEYS),
        ("array", _ARRAY_KEYS),
        ("string", _STRING_KEYS),
        ("number", _NUMBER_KEYS),
    ):
        if keys & core.keys():
            return kind
    return None


def members(core: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    properties, required = core.get("properties", {}), core.get("required", [])
    if not isinstance(properties, dict):
        raise SchemaError("properties must be an object")
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise SchemaError("required must be a list of names")
    return dict(properties), required


def counts(core: dict[str, Any]) -> tuple[int, int | None]:
    low, high = core.get("minItems", 0), core.get("maxItems")
    for name, value in (("minItems", low), ("maxItems", 0 if high is None else high)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise SchemaError(f"{name} must be a whole number, zero or more")
    if low > MAX_ITEMS:
        raise SchemaError(f"minItems may be {MAX_ITEMS:,} at most")
    if high is not None and low > high:
        raise SchemaError("minItems is larger than maxItems")
    # A longer limit than this binds no answer in practice.
    return low, None if high is None or high > MAX_ITEMS else high
