"""JSON schema -> GBNF rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lumen.workers.llamacpp.chat.gbnf import Rules, SchemaError, choice, json_text, literal, repeat
from lumen.workers.llamacpp.chat.objects import other_keys, pairs
from lumen.workers.llamacpp.chat.schema_merge import ANNOTATIONS, merge
from lumen.workers.llamacpp.chat.strings import number_body, string_body

MAX_DEPTH = 32
MAX_VISITS = 4_000
#: The sampler looks for left recursion by walking every path of leading rules, without remembering where it was.
MAX_LEADING_PATHS = 20_000
MAX_ITEMS = 10_000

#: Keywords that a context-free grammar over the text cannot hold the model to; strict schemas may not use them.
UNENFORCED = frozenset(
    {
        *("not", "if", "then", "else", "dependentRequired", "dependentSchemas", "dependencies"),
        *("patternProperties", "propertyNames", "unevaluatedProperties", "unevaluatedItems"),
        *(
            "contains",
            "minContains",
            "maxContains",
            "uniqueItems",
            "multipleOf",
            "minProperties",
            "maxProperties",
        ),
    }
)
_OBJECT_KEYS = frozenset({"properties", "required", "additionalProperties", "minProperties", "maxProperties"})
_ARRAY_KEYS = frozenset({"items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains"})
_STRING_KEYS = frozenset({"pattern", "minLength", "maxLength", "format"})
_NUMBER_KEYS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
_TYPES = frozenset({"object", "array", "string", "number", "integer", "boolean", "null"})

Leading = frozenset[str]
"""References being resolved with no text between them and here: to meet one again is a loop without end."""


class SchemaWriter:
    """Writes one schema document into a rule book. Raises SchemaError.

    strict: keywords that cannot be enforced are errors; else they are left to the model.
    """

    def __init__(self, rules: Rules, document: Any, strict: bool) -> None:
        self._rules = rules
        self._document = document
        self._strict = strict
        self._visits = 0
        self._references: dict[str, str] = {}
        self._leads: dict[str, list[str]] = {}

    def write(self, hint: str) -> str:
        """The rule of the whole document."""
        name = self._value(self._document, hint, 0, frozenset())
        self._check_paths()
        return name

    def _value(self, schema: Any, hint: str, depth: int, leading: Leading) -> str:
        self._visits += 1
        if depth > MAX_DEPTH:
            raise SchemaError(f"it is nested deeper than {MAX_DEPTH} levels")
        if self._visits > MAX_VISITS:
            raise SchemaError(f"it has more than {MAX_VISITS:,} parts once references are followed")
        if schema is True:
            return self._rules.any_value()
        if schema is False:
            raise SchemaError("a schema of false allows no value at all")
        if not isinstance(schema, dict):
            raise SchemaError("a schema must be an object")
        if self._strict and (loose := UNENFORCED & schema.keys()):
            raise SchemaError(f"{min(loose)} cannot be enforced in strict mode")
        core = {key: value for key, value in schema.items() if key not in ANNOTATIONS}
        if "$ref" in core:
            return self._reference(core, hint, depth, leading)
        if "allOf" in core:
            return self._all_of(core, hint, depth, leading)
        return self._plain(core, hint, depth, leading)

    def _plain(self, core: dict[str, Any], hint: str, depth: int, leading: Leading) -> str:
        if "const" in core:
            return self._rules.add(hint, literal(json_text(core["const"])))
        if "enum" in core:
            return self._enum(core["enum"], hint)
        for keyword in ("anyOf", "oneOf"):
            if keyword in core:
                base = {key: value for key, value in core.items() if key != keyword}
                branches = _schemas(core[keyword], keyword)
                if base:
                    branches = [merge(base, self._resolved(branch, leading)) for branch in branches]
                return self._union(branches, hint, depth, leading)
        kind = core.get("type")
        if isinstance(kind, list):
            return self._union([{**core, "type": one} for one in kind], hint, depth, leading)
        return self._typed(kind if kind is not None else _inferred(core), core, hint, depth)

    def _typed(self, kind: Any, core: dict[str, Any], hint: str, depth: int) -> str:
        if kind is None:
            return self._rules.any_value()
        if not isinstance(kind, str) or kind not in _TYPES:
            raise SchemaError(f"{kind!r:.40} is no type of JSON schema")
        if kind == "object":
            return self._object(core, hint, depth)
        if kind == "array":
            return self._array(core, hint, depth)
        if kind == "string":
            body = string_body(self._rules, core, hint, self._strict)
            return self._rules.add(hint, body) if body else self._rules.string()
        if kind in ("integer", "number"):
            body = number_body(core, whole=kind == "integer")
            fallback = self._rules.integer if kind == "integer" else self._rules.number
            return self._rules.add(hint, body) if body else fallback()
        return self._rules.boolean() if kind == "boolean" else self._rules.null()

    def _enum(self, values: Any, hint: str) -> str:
        if not isinstance(values, list) or not values:
            raise SchemaError("enum must be a list of at least one value")
        return self._rules.add(hint, choice([json_text(value) for value in values]))

    def _union(self, branches: Sequence[Any], hint: str, depth: int, leading: Leading) -> str:
        names = [
            self._value(branch, f"{hint}-{number}", depth + 1, leading) for number, branch in enumerate(branches, 1)
        ]
        unique = list(dict.fromkeys(names))
        if len(unique) == 1:
            return unique[0]
        name = self._rules.add(hint, " | ".join(unique))
        self._leads[name] = unique
        return name

    def _reference(self, core: dict[str, Any], hint: str, depth: int, leading: Leading) -> str:
        reference = core["$ref"]
        rest = {key: value for key, value in core.items() if key != "$ref"}
        target = self._target(reference, leading)
        if rest:
            return self._value(merge(target, rest), hint, depth + 1, leading | {reference})
        known = self._references.get(reference)
        if known is None:
            known = self._rules.reserve(f"ref-{reference.rsplit('/', 1)[-1]}")
            self._references[reference] = known
            inner = self._value(target, hint, depth + 1, leading | {reference})
            self._rules.define(known, inner)
            self._leads[known] = [inner]
        return known

    def _target(self, reference: Any, leading: Leading) -> Any:
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            raise SchemaError("$ref may only point into the schema itself (#/…)")
        if reference in leading:
            raise SchemaError(f"$ref {reference:.80} leads back to itself")
        target = self._document
        for raw in reference.split("/")[1:]:
            key = raw.replace("~1", "/").replace("~0", "~")
            if isinstance(target, list) and key.isascii() and key.isdigit() and int(key[:6]) < len(target):
                target = target[int(key[:6])]
            elif isinstance(target, dict) and key in target:
                target = target[key]
            else:
                raise SchemaError(f"$ref {reference:.80} points to nothing")
        return target

    def _resolved(self, schema: Any, leading: Leading) -> Any:
        """`schema` with a reference at its top replaced by what it points to."""
        seen = leading
        while isinstance(schema, dict) and "$ref" in schema:
            reference = schema["$ref"]
            target = self._target(reference, seen)
            seen = seen | {reference}
            rest = {key: value for key, value in schema.items() if key != "$ref" and key not in ANNOTATIONS}
            schema = merge(target, rest) if rest else target
        return schema

    def _all_of(self, core: dict[str, Any], hint: str, depth: int, leading: Leading) -> str:
        merged: Any = {key: value for key, value in core.items() if key != "allOf"}
        for part in _schemas(core["allOf"], "allOf"):
            self._visits += 1
            merged = merge(merged, self._resolved(part, leading))
        followed = {part["$ref"] for part in core["allOf"] if isinstance(part, dict) and "$ref" in part}
        return self._value(merged, hint, depth + 1, leading | followed)

    def _object(self, core: dict[str, Any], hint: str, depth: int) -> str:
        properties, required = _members(core)
        extra = core.get("additionalProperties", "properties" not in core)
        if not properties and not required and extra is True:
            return self._rules.any_object()
        for name in required:
            if name not in properties:
                if extra is False:
                    raise SchemaError(f"{name!r:.60} is required, but no property and additionalProperties is false")
                properties[name] = extra
        sp = self._rules.space()
        colon = f'{sp} ":" {sp}'
        members = []
        for name, schema in properties.items():
            value = self._value(schema, f"{hint}-{name}", depth + 1, frozenset())
            pair = self._rules.add(f"{hint}-{name}-kv", f"{literal(json_text(name))} {colon} {value}")
            members.append((pair, name in required))
        others = None
        if extra is not False:
            value = self._value(extra, f"{hint}-other", depth + 1, frozenset())
            key = other_keys(self._rules, hint, list(properties))
            others = self._rules.add(f"{hint}-other-kv", f"{key} {colon} {value}")
        return self._rules.add(hint, pairs(self._rules, hint, members, others))

    def _array(self, core: dict[str, Any], hint: str, depth: int) -> str:
        low, high = _counts(core)
        sp = self._rules.space()
        prefix = core.get("prefixItems", [])
        items = core.get("items", not prefix)
        if isinstance(items, list):
            prefix, items = items, core.get("additionalItems", False)
        if prefix:
            prefix = _schemas(prefix, "prefixItems")[:high]
        if items is False:
            high = len(prefix) if high is None else min(high, len(prefix))
            items = True
        if high is not None and low > high:
            raise SchemaError("minItems is larger than the items that are allowed")
        first = [self._value(part, f"{hint}-{number}", depth + 1, frozenset()) for number, part in enumerate(prefix)]
        left = None if high is None else high - len(first)
        if left == 0:
            inner = f' {sp} "," {sp} '.join(first)
            return self._rules.add(hint, f'"[" {sp} {inner} {sp} "]"' if first else f'"[" {sp} "]"')
        item = self._value(items, f"{hint}-item", depth + 1, frozenset())
        more = self._rules.add(f"{hint}-more", f'{sp} "," {sp} {item}')
        if first:
            rest = repeat(self._rules, hint, more, max(low - len(first), 0), left)
            inner = f' {sp} "," {sp} '.join(first)
            return self._rules.add(hint, f'"[" {sp} {inner} {rest} {sp} "]"')
        rest = repeat(self._rules, hint, more, max(low, 1) - 1, None if left is None else left - 1)
        body = f"{item} {rest} {sp}"
        return self._rules.add(hint, f'"[" {sp} {body} "]"' if low else f'"[" {sp} ({body})? "]"')

    def _check_paths(self) -> None:
        """Refuses unions whose leading rules fan out into more paths than the sampler's check could walk."""
        paths: dict[str, int] = {}

        def count(name: str) -> int:
            if name not in paths:
                paths[name] = 1 + sum(count(inner) for inner in self._leads.get(name, ()))
            return paths[name]

        if sum(min(count(name), MAX_LEADING_PATHS + 1) for name in self._leads) > MAX_LEADING_PATHS:
            raise SchemaError("its alternatives multiply too much")


def _schemas(value: Any, keyword: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise SchemaError(f"{keyword} must be a list of at least one schema")
    return value


def _inferred(core: dict[str, Any]) -> str | None:
    for kind, keys in (
        ("object", _OBJECT_KEYS),
        ("array", _ARRAY_KEYS),
        ("string", _STRING_KEYS),
        ("number", _NUMBER_KEYS),
    ):
        if keys & core.keys():
            return kind
    return None


def _members(core: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    properties, required = core.get("properties", {}), core.get("required", [])
    if not isinstance(properties, dict):
        raise SchemaError("properties must be an object")
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise SchemaError("required must be a list of names")
    return dict(properties), required


def _counts(core: dict[str, Any]) -> tuple[int, int | None]:
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
