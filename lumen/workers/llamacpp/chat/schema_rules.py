"""JSON schema -> GBNF rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lumen.workers.llamacpp.chat.ambiguity import Member, Sketch
from lumen.workers.llamacpp.chat.gbnf import Rules, SchemaError, choice, json_text, literal, repeat
from lumen.workers.llamacpp.chat.objects import other_keys, pairs
from lumen.workers.llamacpp.chat.schema_merge import ANNOTATIONS, merge
from lumen.workers.llamacpp.chat.schema_parts import counts, inferred, literals_first, members, schemas
from lumen.workers.llamacpp.chat.strings import number_body, string_body

MAX_DEPTH = 32
MAX_VISITS = 4_000
#: The sampler looks for left recursion by walking every path of leading rules, without remembering where it was.
MAX_LEADING_PATHS = 20_000
#: Alternatives, or optional members, at one place: the sampler tries each against the whole vocabulary.
MAX_ALTERNATIVES = 256

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
_TYPES = frozenset({"object", "array", "string", "number", "integer", "boolean", "null"})

Leading = frozenset[str]
"""References being resolved with no text between them and here: to meet one again is a loop without end."""


class SchemaWriter:
    """Writes one schema document into a rule book. Raises SchemaError.

    strict: keywords that cannot be enforced are errors; else they are left to the model. loose: alternatives that look
    alike become any object or array (write() falls back to this where they would cost the sampler too much).
    """

    def __init__(self, rules: Rules, document: Any, strict: bool, loose: bool = False) -> None:
        self._rules = rules
        self._document = document
        self._strict = strict
        self._visits = 0
        self._references: dict[str, str] = {}
        self._loose = loose
        self._sketch = Sketch(kinds={"object": "object", "array": "array", "value": "value"})

    def write(self, hint: str) -> str:
        """The rule of the whole document."""
        mark = self._rules.mark()
        name = self._value(self._document, hint, 0, frozenset())
        self._check_paths()
        if not self._sketch.excessive(name):
            return name
        if self._strict or self._loose:
            raise SchemaError("it nests alternatives that look alike too deeply")
        self._rules.restore(mark)
        return SchemaWriter(self._rules, self._document, self._strict, loose=True).write(hint)

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
                branches = schemas(core[keyword], keyword)
                if base:
                    branches = [merge(base, self._resolved(branch, leading)) for branch in branches]
                return self._union(branches, hint, depth, leading)
        kind = core.get("type")
        if isinstance(kind, list):
            return self._union([{**core, "type": one} for one in kind], hint, depth, leading)
        return self._typed(kind if kind is not None else inferred(core), core, hint, depth)

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
        branches = literals_first(branches)
        names = [
            self._value(branch, f"{hint}-{number}", depth + 1, leading) for number, branch in enumerate(branches, 1)
        ]
        unique = list(dict.fromkeys(names))
        if self._loose:
            unique = self._loosened(unique)
        if len(unique) == 1:
            return unique[0]
        if len(unique) > MAX_ALTERNATIVES:
            raise SchemaError(f"it has more than {MAX_ALTERNATIVES} alternatives in one place")
        name = self._rules.add(hint, " | ".join(unique))
        self._sketch.leads[name] = unique
        return name

    def _loosened(self, names: list[str]) -> list[str]:
        """Alternatives with those of one container kind, where there are several, replaced by any such container."""
        leaves = list(dict.fromkeys(leaf for name in names for leaf in self._sketch.leaves(name)))
        kinds = [self._sketch.kinds.get(leaf, "") for leaf in leaves]
        if "value" in kinds:
            return [self._rules.any_value()]
        for kind, anything in (("object", self._rules.any_object), ("array", self._rules.any_array)):
            if kinds.count(kind) > 1:
                leaves = [anything(), *(leaf for leaf in leaves if self._sketch.kinds.get(leaf) != kind)]
        return leaves

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
            self._sketch.leads[known] = [inner]
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
        for part in schemas(core["allOf"], "allOf"):
            self._visits += 1
            merged = merge(merged, self._resolved(part, leading))
        followed = {part["$ref"] for part in core["allOf"] if isinstance(part, dict) and "$ref" in part}
        return self._value(merged, hint, depth + 1, leading | followed)

    def _object(self, core: dict[str, Any], hint: str, depth: int) -> str:
        properties, required = members(core)
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
        declared: list[Member] = []
        written: list[tuple[str, bool]] = []
        for name, schema in properties.items():
            value = self._value(schema, f"{hint}-{name}", depth + 1, frozenset())
            pair = self._rules.add(f"{hint}-{name}-kv", f"{literal(json_text(name))} {colon} {value}")
            written.append((pair, name in required))
            declared.append(Member(name, name in required, value, self._only_texts(schema)))
        if sum(not member.required for member in declared) > MAX_ALTERNATIVES:
            raise SchemaError(f"it has more than {MAX_ALTERNATIVES} optional properties in one object")
        inside = [member.value for member in declared]
        others = None
        if extra is not False:
            value = self._value(extra, f"{hint}-other", depth + 1, frozenset())
            key = other_keys(self._rules, hint, list(properties))
            others = self._rules.add(f"{hint}-other-kv", f"{key} {colon} {value}")
            inside.append(value)
        made = self._rules.add(hint, pairs(self._rules, hint, written, others))
        self._sketch.kinds[made], self._sketch.inside[made] = "object", inside
        self._sketch.members[made] = declared
        return made

    def _only_texts(self, schema: Any) -> frozenset[str] | None:
        """The JSON texts of a schema's values where it lists them."""
        schema = self._resolved(schema, frozenset())
        if isinstance(schema, dict) and "const" in schema:
            return frozenset({json_text(schema["const"])})
        if isinstance(schema, dict) and isinstance(schema.get("enum"), list):
            return frozenset(map(json_text, schema["enum"]))
        return None

    def _array(self, core: dict[str, Any], hint: str, depth: int) -> str:
        low, high = counts(core)
        sp = self._rules.space()
        prefix = core.get("prefixItems", [])
        items = core.get("items", not prefix)
        if isinstance(items, list):
            prefix, items = items, core.get("additionalItems", False)
        if prefix:
            prefix = schemas(prefix, "prefixItems")[:high]
        if items is False:
            high = len(prefix) if high is None else min(high, len(prefix))
            items = True
        if high is not None and low > high:
            raise SchemaError("minItems is larger than the items that are allowed")
        first = [self._value(part, f"{hint}-{number}", depth + 1, frozenset()) for number, part in enumerate(prefix)]
        left = None if high is None else high - len(first)
        inside = list(first)
        comma = f'{sp} "," {sp}'
        listed = f" {comma} ".join(first)
        if left == 0:
            body = f'"[" {sp} {listed} {sp} "]"' if first else f'"[" {sp} "]"'
        else:
            item = self._value(items, f"{hint}-item", depth + 1, frozenset())
            inside.append(item)
            more = self._rules.add(f"{hint}-more", f"{comma} {item}")
            if first:
                body = f'"[" {sp} {listed} {repeat(self._rules, hint, more, max(low - len(first), 0), left)} {sp} "]"'
            else:
                rest = repeat(self._rules, hint, more, max(low, 1) - 1, None if left is None else left - 1)
                some = f"{item} {rest} {sp}"
                body = f'"[" {sp} {some} "]"' if low else f'"[" {sp} ({some})? "]"'
        made = self._rules.add(hint, body)
        self._sketch.kinds[made], self._sketch.inside[made] = "array", inside
        return made

    def _check_paths(self) -> None:
        """Refuses unions whose leading rules fan out into more paths than the sampler's check could walk."""
        paths: dict[str, int] = {}

        def count(name: str) -> int:
            if name not in paths:
                paths[name] = 1 + sum(count(inner) for inner in self._sketch.leads.get(name, ()))
            return paths[name]

        if sum(min(count(name), MAX_LEADING_PATHS + 1) for name in self._sketch.leads) > MAX_LEADING_PATHS:
            raise SchemaError("its alternatives multiply too much")
