"""Conjunction of JSON schemas: `allOf`, and keywords beside `$ref` or `anyOf`."""

from __future__ import annotations

from typing import Any

from lumen.workers.llamacpp.chat.gbnf import SchemaError

#: Keywords that say nothing about which values are valid.
ANNOTATIONS = frozenset(
    {
        *("title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly"),
        *("$schema", "$id", "$comment", "$anchor", "$defs", "definitions", "strict", "nullable"),
        *("externalDocs", "xml", "discriminator", "contentMediaType", "contentEncoding"),
    }
)

_LARGER = frozenset({"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"})
_SMALLER = frozenset({"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"})


def merge(left: Any, right: Any) -> Any:
    """A schema that allows what both allow. Raises SchemaError where that cannot be written as one schema."""
    if left is True:
        return right
    if right is True:
        return left
    if left is False or right is False:
        return False
    if not isinstance(left, dict) or not isinstance(right, dict):
        raise SchemaError("a schema must be an object")
    out = {key: value for key, value in left.items() if key not in ANNOTATIONS}
    for key, value in right.items():
        if key in ANNOTATIONS:
            continue
        out[key] = _both(key, out[key], value) if key in out and out[key] != value else value
    return out


def _both(key: str, one: Any, other: Any) -> Any:
    if key == "properties" and isinstance(one, dict) and isinstance(other, dict):
        merged = dict(one)
        for name, schema in other.items():
            merged[name] = {"allOf": [merged[name], schema]} if name in merged else schema
        return merged
    if key == "required" and isinstance(one, list) and isinstance(other, list):
        return [*one, *(name for name in other if name not in one)]
    if key == "allOf" and isinstance(one, list) and isinstance(other, list):
        return [*one, *other]
    if key in ("items", "additionalProperties"):
        return False if one is False or other is False else {"allOf": [one, other]}
    if key == "type":
        return _types(one, other)
    if key == "enum" and isinstance(one, list) and isinstance(other, list):
        shared = [value for value in one if value in other]
        if shared:
            return shared
    if key in _LARGER | _SMALLER and _is_number(one) and _is_number(other):
        return max(one, other) if key in _LARGER else min(one, other)
    raise SchemaError(f"two schemas that must both hold disagree on {key}")


def _types(one: Any, other: Any) -> Any:
    left, right = (value if isinstance(value, list) else [value] for value in (one, other))
    shared = [kind for kind in left if kind in right]
    if any("number" in a and "integer" in b for a, b in ((left, right), (right, left))):
        shared.append("integer")
    if not shared:
        raise SchemaError("two schemas that must both hold disagree on type")
    return shared[0] if len(shared) == 1 else list(dict.fromkeys(shared))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
