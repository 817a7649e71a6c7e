"""Whether a JSON value fits a JSON schema: the part of the language that describes answers and arguments. Pure.

Source: JSON Schema 2020-12, core and validation. A schema that uses more than this is refused when it is read, rather
than half obeyed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_MOST_DEPTH = 64
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
    "number": (int, float),
    "integer": (int, float),
}
# Keywords that say nothing about whether a value fits.
_SILENT = {
    "$schema", "$id", "$comment", "title", "description", "default", "examples", "format", "deprecated", "readOnly",
    "writeOnly", "strict", "name",
}  # fmt: skip
_KNOWN = _SILENT | {
    "type", "enum", "const", "properties", "required", "additionalProperties", "items", "minItems", "maxItems",
    "uniqueItems", "minLength", "maxLength", "pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
    "multipleOf", "minProperties", "maxProperties", "anyOf", "allOf", "oneOf", "not",
}  # fmt: skip


def problem(schema: Any, depth: int = 0) -> str | None:
    """Why a schema cannot be used; `None` where it can."""
    if isinstance(schema, bool):
        return None
    if not isinstance(schema, dict):
        return "a schema is an object, true or false"
    if depth > _MOST_DEPTH:
        return "the schema is nested too deeply"
    unknown = sorted(set(schema) - _KNOWN)
    if unknown:
        return f"the keyword '{unknown[0]}' is not understood"
    names = schema.get("type", [])
    for name in [names] if isinstance(names, str) else names:
        if name not in _TYPES:
            return f"there is no type '{name}'"
    if "pattern" in schema:
        try:
            re.compile(schema["pattern"])
        except (re.error, TypeError):
            return "the pattern is no regular expression"
    for inner in _inner(schema):
        if (found := problem(inner, depth + 1)) is not None:
            return found
    return None


def fits(value: Any, schema: Any) -> bool:
    """Whether a value fits a schema without `problem`s."""
    if isinstance(schema, bool):
        return schema
    return (
        _fits_type(value, schema.get("type"))
        and ("enum" not in schema or any(_same(value, one) for one in schema["enum"]))
        and ("const" not in schema or _same(value, schema["const"]))
        and _fits_number(value, schema)
        and _fits_text(value, schema)
        and _fits_array(value, schema)
        and _fits_object(value, schema)
        and all(fits(value, one) for one in schema.get("allOf", ()))
        and ("anyOf" not in schema or any(fits(value, one) for one in schema["anyOf"]))
        and ("oneOf" not in schema or sum(fits(value, one) for one in schema["oneOf"]) == 1)
        and ("not" not in schema or not fits(value, schema["not"]))
    )


def _inner(schema: Mapping[str, Any]) -> list[Any]:
    found = [schema[name] for name in ("items", "additionalProperties", "not") if name in schema]
    found += list(schema.get("properties", {}).values())
    for name in ("anyOf", "allOf", "oneOf"):
        found += list(schema.get(name, ()))
    return found


def _fits_type(value: Any, names: Any) -> bool:
    if names is None:
        return True
    for name in [names] if isinstance(names, str) else names:
        if not isinstance(value, _TYPES[name]) or (isinstance(value, bool) and name in ("number", "integer")):
            continue
        if name != "integer" or (isinstance(value, int | float) and float(value).is_integer()):
            return True
    return False


def _same(one: Any, other: Any) -> bool:
    # True is 1 to Python, and not to JSON.
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _fits_number(value: Any, schema: Mapping[str, Any]) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return True
    step = schema.get("multipleOf")
    return (
        value >= schema.get("minimum", value)
        and value <= schema.get("maximum", value)
        and ("exclusiveMinimum" not in schema or value > schema["exclusiveMinimum"])
        and ("exclusiveMaximum" not in schema or value < schema["exclusiveMaximum"])
        and (step is None or abs(value / step - round(value / step)) < 1e-9)
    )


def _fits_text(value: Any, schema: Mapping[str, Any]) -> bool:
    if not isinstance(value, str):
        return True
    return schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)) and (
        "pattern" not in schema or re.search(schema["pattern"], value) is not None
    )


def _fits_array(value: Any, schema: Mapping[str, Any]) -> bool:
    if not isinstance(value, list):
        return True
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
        return False
    if schema.get("uniqueItems") and len({json.dumps(one, sort_keys=True) for one in value}) < len(value):
        return False
    return all(fits(one, schema["items"]) for one in value) if "items" in schema else True


def _fits_object(value: Any, schema: Mapping[str, Any]) -> bool:
    if not isinstance(value, dict):
        return True
    if not schema.get("minProperties", 0) <= len(value) <= schema.get("maxProperties", len(value)):
        return False
    if any(name not in value for name in schema.get("required", ())):
        return False
    known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    return all(fits(one, known.get(name, others)) for name, one in value.items())
