from __future__ import annotations

import json
from typing import Any

import pytest

from lumen.workers.llamacpp.chat.gbnf import Grammar
from lumen.workers.llamacpp.chat.schema import BadSchema, check_tools, response_grammar

CASES: list[tuple[str, Any, list[Any], list[Any]]] = [
    ("true", True, [1, "a", None, {"b": [1]}], []),
    ("empty", {}, [1, "a", [], {}], []),
    ("type only", {"type": "object"}, [{}, {"a": {"b": [1, -2.5e3, "x", None, True]}}], [1, []]),
    ("string", {"type": "string"}, ["", 'a"b\\\n', "é😀"], [1, None]),
    ("integer", {"type": "integer"}, [0, -7, 123456], [1.5, "1", None]),
    ("number", {"type": "number"}, [0, -1.25, 3e20], ["1", None]),
    ("boolean", {"type": "boolean"}, [True, False], [0, "true"]),
    ("null", {"type": "null"}, [None], [0, False]),
    ("nullable", {"type": ["string", "null"]}, ["x", None], [1]),
    ("enum", {"enum": ["red", "redder", 3, None]}, ["red", "redder", 3, None], ["re", "reddest", 33]),
    ("const", {"const": {"a": [1, "x"]}}, [{"a": [1, "x"]}], [{"a": [1]}]),
    ("any of", {"anyOf": [{"type": "integer"}, {"type": "string"}]}, [1, "x"], [True]),
    ("one of", {"oneOf": [{"const": 1}, {"const": 2}]}, [1, 2], [3]),
    ("min items", {"type": "array", "items": {"type": "integer"}, "minItems": 2}, [[1, 2], [1, 2, 3]], [[], [1]]),
    ("max items", {"items": {"type": "integer"}, "maxItems": 2}, [[], [1], [1, 2]], [[1, 2, 3]]),
    ("no items", {"type": "array", "maxItems": 0}, [[]], [[1]]),
    ("exact items", {"items": {"const": 1}, "minItems": 3, "maxItems": 3}, [[1] * 3], [[1] * 2, [1] * 4]),
    ("tuple", {"prefixItems": [{"type": "integer"}, {"type": "string"}]}, [[1, "a"]], [[1], [1, 2]]),
    (
        "tuple and rest",
        {"prefixItems": [{"const": 1}], "items": {"const": 2}, "minItems": 2, "maxItems": 3},
        [[1, 2], [1, 2, 2]],
        [[1], [1, 2, 2, 2], [2, 2]],
    ),
    ("min length", {"type": "string", "minLength": 2}, ["ab", "abc"], ["a", ""]),
    ("max length", {"type": "string", "maxLength": 2}, ["", "a", "ab", "éé"], ["abc"]),
    (
        "long length",
        {"type": "string", "minLength": 150, "maxLength": 200},
        ["x" * 150, "x" * 200],
        ["x" * 149, "x" * 201],
    ),
    ("pattern", {"type": "string", "pattern": "^[a-c]{2,3}-\\d+$"}, ["ab-1", "abc-42"], ["a-1", "abca-1", "ab-"]),
    ("loose pattern", {"pattern": "b+"}, ["b", "abba"], ["aca"]),
    ("pattern escapes", {"pattern": '^"\\\\\\n[^x]$'}, ['"\\\ny', '"\\\n"'], ['"\\\nx']),
    ("pattern or", {"pattern": "^(?:yes|no)$|^maybe$"}, ["yes", "no", "maybe"], ["yesno", "may"]),
    ("pattern dot", {"pattern": "^a.c$"}, ["abc", 'a"c', "aéc"], ["ac", "a\nc"]),
    ("pattern codes", {"pattern": "^\\x41\\u00e9[\\D\\t]\\S\\W$"}, ["Aéxy-", "Aé\txä"], ["Aé1y-", "Aéx -"]),
    ("pattern groups", {"pattern": "^(?<n>ab)+?(?:c|(d))??x{2}y{0}z{1,}$"}, ["abxxz", "ababdxxzz"], ["xxz", "abxyz"]),
    ("pattern ranges", {"pattern": "^[!-~-][\\]\\-^]$"}, ["a]", "--", '"^'], ["é]", "ab"]),
    ("date", {"type": "string", "format": "date"}, ["2024-02-29"], ["2024-13-01", "2024-1-1"]),
    ("time", {"type": "string", "format": "time"}, ["23:59:00Z", "01:00:00.5+02:00"], ["24:00:00Z", "01:00:00"]),
    ("date-time", {"type": "string", "format": "date-time"}, ["2024-02-29T01:02:03Z"], ["2024-02-29"]),
    ("uuid", {"format": "uuid"}, ["01234567-89ab-cdef-0123-456789abcdef"], ["01234567"]),
    ("ipv4", {"format": "ipv4"}, ["127.0.0.1", "255.255.255.255"], ["256.1.1.1", "1.1.1"]),
    ("unknown format", {"type": "string", "format": "hostname"}, ["x"], [1]),
    ("closed", {"properties": {"a": {"type": "integer"}}, "additionalProperties": False}, [{}, {"a": 1}], [{"b": 1}]),
    ("empty closed", {"type": "object", "properties": {}}, [{}], [{"a": 1}]),
    (
        "required and optional",
        {"properties": {"a": {"const": 1}, "b": {"const": 2}, "c": {"const": 3}}, "required": ["b"]},
        [{"b": 2}, {"a": 1, "b": 2}, {"b": 2, "c": 3}, {"a": 1, "b": 2, "c": 3}],
        [{}, {"a": 1}, {"a": 1, "c": 3}],
    ),
    (
        "all optional",
        {"properties": {"a": {"const": 1}, "b": {"const": 2}, "c": {"const": 3}}},
        [{}, {"a": 1}, {"c": 3}, {"a": 1, "c": 3}, {"a": 1, "b": 2, "c": 3}],
        [{"d": 1}],
    ),
    (
        "other keys",
        {"properties": {"a": {"const": 1}, "ab": {"const": 2}}, "additionalProperties": {"type": "string"}},
        [{}, {"a": 1, "b": "x"}, {"abc": "x", "": "y", "b": "z"}, {"ab": 2, 'a"b': "x"}],
        [{"x": 1}, {"a": "x"}, {"ab": "x"}],
    ),
    ("only others", {"additionalProperties": {"type": "integer"}}, [{}, {"a": 1, "b": 2}], [{"a": "x"}]),
    ("required unknown", {"required": ["k"]}, [{"k": 1}, {"k": 1, "x": 2}], [{}, {"x": 1}]),
    (
        "nested",
        {"properties": {"o": {"properties": {"l": {"items": {"enum": ["x"]}}}, "required": ["l"]}}, "required": ["o"]},
        [{"o": {"l": []}}, {"o": {"l": ["x", "x"]}}],
        [{"o": {}}, {"o": {"l": ["y"]}}],
    ),
    (
        "reference",
        {"$defs": {"n": {"type": "integer"}}, "properties": {"a": {"$ref": "#/$defs/n"}}, "required": ["a"]},
        [{"a": 1}],
        [{"a": "x"}],
    ),
    (
        "recursive",
        {
            "$ref": "#/$defs/node",
            "$defs": {
                "node": {
                    "properties": {
                        "v": {"type": "integer"},
                        "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                    },
                    "required": ["v", "next"],
                }
            },
        },
        [{"v": 1, "next": None}, {"v": 1, "next": {"v": 2, "next": None}}],
        [{"v": 1}, {"v": 1, "next": {}}],
    ),
    ("self", {"type": "array", "items": {"$ref": "#"}}, [[], [[], [[]]]], [[1]]),
    (
        "all of",
        {
            "$defs": {"a": {"properties": {"a": {"type": "integer"}}, "required": ["a"]}},
            "allOf": [{"$ref": "#/$defs/a"}, {"properties": {"b": {"type": "string"}}, "required": ["b"]}],
        },
        [{"a": 1, "b": "x"}],
        [{"a": 1}, {"b": "x"}],
    ),
    (
        "beside any of",
        {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
        },
        [{"a": 1}, {"b": 1}, {"a": 1, "b": 2}],
        [{}],
    ),
    (
        "beside reference",
        {"$defs": {"s": {"type": "string"}}, "$ref": "#/$defs/s", "maxLength": 1},
        ["", "a"],
        ["ab", 1],
    ),
    (
        "all of alike",
        {
            "allOf": [
                {"properties": {"a": {"type": "number"}, "b": {"enum": [1, 2, 3]}}, "required": ["a"]},
                {"properties": {"a": {"type": "integer"}, "b": {"enum": [2, 3, 4]}}, "required": ["a", "b"]},
                True,
                {"properties": {"a": {"minimum": 1}}, "allOf": [{"properties": {"a": {"minimum": 3, "maximum": 5}}}]},
            ]
        },
        [{"a": 3, "b": 2}, {"a": 5, "b": 3}],
        [{"a": 2, "b": 2}, {"a": 6, "b": 2}, {"a": 3.5, "b": 2}, {"a": 3, "b": 4}, {"a": 3}],
    ),
    (
        "all of containers",
        {
            "allOf": [
                {"type": ["array", "object"], "items": {"type": "string"}, "maxItems": 3, "additionalProperties": True},
                {"type": ["array", "null"], "items": {"maxLength": 1}, "maxItems": 2, "additionalProperties": False},
            ]
        },
        [[], ["a"], ["a", "b"]],
        [["ab"], ["a", "b", "c"], {}, None],
    ),
    ("draft 4 bounds", {"type": "integer", "minimum": 2, "exclusiveMinimum": True, "maximum": 5}, [3, 5], [2, 6]),
    ("two bounds", {"type": "number", "minimum": 2, "exclusiveMinimum": 1, "exclusiveMaximum": 3}, [2, 2.9], [1.5, 3]),
    ("fractions", {"type": "integer", "minimum": -1.5, "maximum": 2.5}, [-1, 0, 2], [-2, 3]),
    ("int range", {"type": "integer", "minimum": -12, "maximum": 205}, [-12, -9, 0, 99, 200, 205], [-13, 206, 1000]),
    ("int open", {"type": "integer", "exclusiveMinimum": 9}, [10, 99, 12345], [9, 0, -5]),
    ("int below", {"type": "integer", "exclusiveMaximum": 0}, [-1, -400], [0, 5]),
    ("unit interval", {"type": "number", "minimum": 0, "maximum": 1}, [0, 1, 0.5, 0.0, 1.0, 0.001], [1.1, 2, -1]),
    (
        "decimal range",
        {"type": "number", "minimum": -0.25, "maximum": 1.75},
        [-0.25, -0.1, 0, 1, 1.75, 1.749],
        [-0.26, 1.76, 2, -1],
    ),
    ("above zero", {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, [0.5, 0.01, 0.999], [0, 1, 1.5]),
    ("narrow", {"type": "number", "minimum": 2.35, "maximum": 2.38}, [2.35, 2.36, 2.38, 2.377], [2.34, 2.39, 2, 3]),
]


def schema_format(schema: Any, strict: bool = False) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": strict}}


def compiled(schema: Any, strict: bool = False) -> Grammar:
    grammar = response_grammar(schema_format(schema, strict))
    assert grammar is not None
    return grammar


@pytest.mark.parametrize(("schema", "good", "wrong"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_language(engine: Any, schema: Any, good: list[Any], wrong: list[Any]) -> None:
    grammar = compiled(schema)
    for value in good:
        text = json.dumps(value, ensure_ascii=False)
        assert engine.matches(grammar, text), f"{text} is refused"
        if "const" not in str(schema):  # a constant has one spelling
            assert engine.matches(grammar, json.dumps(value, ensure_ascii=False, separators=(",", ":")))
    for value in wrong:
        assert not engine.matches(grammar, json.dumps(value, ensure_ascii=False)), f"{value!r} is allowed"


def test_white_space_is_bounded(engine: Any) -> None:
    grammar = compiled({"properties": {"a": {"type": "integer"}}, "required": ["a"]})
    assert engine.matches(grammar, '{\n  "a": 1\n}')
    assert not engine.prefix(grammar, "{   ")
    assert not engine.prefix(grammar, "{\n\n\n")


def test_json_object(engine: Any) -> None:
    grammar = response_grammar({"type": "json_object"})
    assert grammar is not None
    assert engine.matches(grammar, '{"a": [1, {"b": "c"}], "d": null}')
    assert not engine.matches(grammar, "[1]")
    assert not engine.prefix(grammar, "text")


def test_no_format_means_no_grammar() -> None:
    assert response_grammar(None) is None
    assert response_grammar({"type": "text"}) is None


BAD: list[tuple[str, Any, str]] = [
    ("remote", {"$ref": "https://example.org/s.json"}, "into the schema itself"),
    ("file", {"$ref": "file:///etc/passwd"}, "into the schema itself"),
    ("nowhere", {"$ref": "#/$defs/x"}, "points to nothing"),
    ("loop", {"$ref": "#"}, "leads back to itself"),
    (
        "loop of two",
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        "leads back",
    ),
    (
        "loop in any of",
        {"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {"const": 1}]}}, "$ref": "#/$defs/a"},
        "leads back",
    ),
    ("loop in all of", {"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"}, "leads back"),
    ("false", False, "no value"),
    ("number", 3, "must be an object"),
    ("type", {"type": "text"}, "no type of JSON schema"),
    ("type of type", {"type": 3}, "no type of JSON schema"),
    ("enum", {"enum": []}, "at least one"),
    ("any of", {"anyOf": {}}, "list"),
    ("properties", {"type": "object", "properties": []}, "properties must be an object"),
    ("required", {"type": "object", "required": "a"}, "required must be a list"),
    ("required but closed", {"properties": {}, "required": ["a"], "additionalProperties": False}, "required, but"),
    ("items order", {"type": "array", "minItems": 3, "maxItems": 2}, "minItems"),
    ("many items", {"type": "array", "minItems": 10**9}, "at most"),
    ("long", {"type": "string", "minLength": 10**9}, "at most"),
    ("negative", {"type": "string", "maxLength": -1}, "zero or more"),
    ("float count", {"type": "array", "maxItems": 2.5}, "whole number"),
    ("range", {"type": "integer", "minimum": 3, "maximum": 2}, "no whole number"),
    ("real range", {"type": "number", "exclusiveMinimum": 1, "maximum": 1}, "no number"),
    ("huge bound", {"type": "integer", "minimum": 10**400}, "digits"),
    ("clash of enums", {"allOf": [{"enum": [1]}, {"enum": [2]}]}, "disagree on enum"),
    ("false in all of", {"allOf": [{"type": "string"}, False]}, "no value"),
    ("odd all of", {"allOf": [{"type": "string"}, 3]}, "must be an object"),
    ("odd bound", {"type": "integer", "minimum": "3"}, "must be a number"),
    ("odd pattern", {"pattern": 3}, "must be a string"),
    ("lengths", {"type": "string", "minLength": 3, "maxLength": 2}, "larger"),
    ("clash", {"allOf": [{"type": "string"}, {"type": "integer"}]}, "disagree on type"),
]


@pytest.mark.parametrize(("schema", "said"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_refusals(schema: Any, said: str) -> None:
    with pytest.raises(BadSchema) as caught:
        compiled(schema)
    assert said in caught.value.message
    assert caught.value.param == "response_format.json_schema.schema"


@pytest.mark.parametrize("kind", ["xml", None, 3])
def test_bad_format(kind: Any) -> None:
    with pytest.raises(BadSchema) as caught:
        response_grammar({"type": kind})
    assert caught.value.param == "response_format.type"
    with pytest.raises(BadSchema):
        response_grammar({"type": "json_schema"})


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "(?=x)y"},
        {"type": "string", "pattern": "\\bx"},
        {"type": "string", "pattern": "\\p{L}"},
        {"type": "string", "pattern": "a{500}{500}"},
        {"type": "string", "pattern": "a^b"},
        {"type": "string", "pattern": "a{x}"},
        {"type": "string", "pattern": "\\u12"},
        {"type": "string", "pattern": "\\u0000"},
        {"type": "string", "pattern": "^\\x01$"},
        {"type": "string", "pattern": ".*a.{30}b"},
        {"type": "string", "pattern": "a", "maxLength": 3},
        {"type": "string", "pattern": "(a)\\1"},
        {"type": "string", "pattern": "a" * 5000},
        {"type": "array", "uniqueItems": True},
        {"type": "object", "patternProperties": {"x": {}}},
        {"not": {"type": "string"}},
    ],
)
def test_strict_refuses_what_it_cannot_enforce(engine: Any, schema: Any) -> None:
    with pytest.raises(BadSchema):
        compiled(schema, strict=True)
    assert engine.compile(compiled(schema)), "left to the model where not strict"


@pytest.mark.parametrize("pattern", ["(", "((((", "a)", "[z-a]", "a{2,1}", "[a", "*", "a|+", "a\\", "(?<n"])
@pytest.mark.parametrize("strict", [True, False])
def test_a_pattern_that_is_none_is_refused_whether_strict_or_not(pattern: str, strict: bool) -> None:
    with pytest.raises(BadSchema, match="the pattern"):
        compiled({"type": "object", "properties": {"a": {"type": "string", "pattern": pattern}}}, strict=strict)


def _doubling(levels: int) -> dict[str, Any]:
    """A union of two different ways to the next level, at each level: 2^levels leading paths."""
    defs: dict[str, Any] = {f"l{levels}": {"type": "string"}, f"r{levels}": {"type": "integer"}}
    for level in range(levels):
        both = [{"$ref": f"#/$defs/l{level + 1}"}, {"$ref": f"#/$defs/r{level + 1}"}]
        defs[f"l{level}"] = {"anyOf": both}
        defs[f"r{level}"] = {"anyOf": [*both, {"const": level}]}
    return {"$defs": defs, "$ref": "#/$defs/l0"}


def _nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


HOSTILE = {
    "doubling": _doubling(15),
    "deep": _nested(40),
    "very deep": _nested(5000),
    "wide": {"properties": {f"p{n}": {"type": "integer"} for n in range(5000)}},
    "long name": {"properties": {"x" * 300_000: {}}},
    "many enums": {"enum": [str(n) for n in range(5000)]},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_schemas_are_refused_at_once(name: str) -> None:
    with pytest.raises(BadSchema):
        compiled(HOSTILE[name])


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "maxLength": 10**9},
        {"type": "string", "minLength": 90_000, "maxLength": 99_999},
        {"type": "array", "maxItems": 10**9},
        {"type": "array", "minItems": 9_999, "items": {"type": "integer"}},
        _nested(30),
        _doubling(8),
        {"enum": [f"value number {n}" for n in range(1500)]},
        {"enum": ["a" * n for n in range(1, 300)]},
        {"properties": {f"p{n}": {"type": "integer"} for n in range(250)}},
        {"properties": {"a" * n: {"const": n} for n in range(1, 120)}, "additionalProperties": True},
        {"type": "string", "pattern": "^(a{0,15}){0,16}$"},
        {"properties": {'\x00\n"\\': {"const": "\x00\ud800"}}},
        {"properties": {"root": {"type": "string"}, "value": {}, "space": {"type": "null"}, "": {}}},
    ],
    ids=lambda schema: str(schema)[:40],
)
def test_large_but_allowed_schemas_compile(engine: Any, schema: Any) -> None:
    sampler = engine.compile(compiled(schema))
    assert sampler
    assert engine.walk(sampler, engine.spell('{"[', False)) < 4


ALIKE = [
    {"anyOf": [{"type": "array", "items": {"$ref": "#"}}, {"type": "array", "items": {"$ref": "#"}, "minItems": 1}]},
    {
        "anyOf": [
            {"properties": {"a": {"$ref": "#"}}, "required": ["a"]},
            {"properties": {"a": {"$ref": "#"}, "b": {"type": "null"}}, "required": ["a"]},
        ]
    },
    {"anyOf": [{"items": {"items": {"$ref": "#"}}}, {"items": {"$ref": "#"}, "maxItems": 3}, {"type": "null"}]},
    {
        "anyOf": [
            {
                "items": {
                    "anyOf": [
                        {"items": {"anyOf": [{"items": {}, "minItems": n} for n in range(9)]}, "maxItems": m}
                        for m in range(1, 9)
                    ]
                }
            },
            {"items": {}, "maxItems": 7},
        ]
    },
]


@pytest.mark.parametrize("schema", ALIKE, ids=range(len(ALIKE)))
def test_alternatives_that_would_double_with_each_level(engine: Any, schema: Any) -> None:
    with pytest.raises(BadSchema, match="look alike"):
        compiled(schema, strict=True)
    loose = compiled(schema)
    brackets = "[" * 40 if "items" in str(schema)[:60] else '{"a":' * 40
    sampler = engine.compile(loose)
    tokens = engine.spell(brackets, False)
    assert engine.walk(sampler, tokens) == len(tokens)


TELLABLE = [
    {
        "$defs": {
            "e": {
                "anyOf": [
                    {
                        "properties": {"op": {"const": op}, "of": {"items": {"$ref": "#/$defs/e"}}},
                        "required": ["op", "of"],
                    }
                    for op in ("and", "or", "not")
                ]
            }
        },
        "$ref": "#/$defs/e",
    },
    {
        "anyOf": [
            {"properties": {"id": {"type": "integer"}, k: {"$ref": "#"}}, "required": ["id", k]}
            for k in ("x", "y", "z")
        ]
    },
    {"properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}, "v": {}}, "required": ["next", "v"]},
    {"type": ["object", "array", "null"], "properties": {"a": {"$ref": "#"}}, "items": {"$ref": "#"}},
    {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "array", "items": {"type": "integer"}}]},
    {"anyOf": [{"properties": {"a": {}}}, {"properties": {"b": {"$ref": "#"}}}]},
]


@pytest.mark.parametrize("schema", TELLABLE, ids=range(len(TELLABLE)))
def test_alternatives_that_can_be_told_apart_stay_exact(engine: Any, schema: Any) -> None:
    assert compiled(schema, strict=True) == compiled(schema)
    assert engine.compile(compiled(schema))


def test_described_values_are_one_enumeration(engine: Any) -> None:
    schema = {"oneOf": [{"const": f"value {n}", "title": "x", "type": "string"} for n in range(400)]}
    grammar = compiled(schema, strict=True)
    assert engine.matches(grammar, '"value 399"')
    assert not engine.matches(grammar, '"value 400"')


def test_tools_are_checked_one_by_one() -> None:
    good = {"type": "function", "function": {"name": "a", "parameters": {"type": "object", "properties": {}}}}
    check_tools([good, {"type": "function", "function": {"name": "b"}}])
    wrong = {"type": "function", "function": {"name": "c", "parameters": {"type": "object", "required": [1]}}}
    with pytest.raises(BadSchema) as caught:
        check_tools([good, good, wrong])
    assert caught.value.param == "tools[2].function.parameters"
    assert str(caught.value).startswith("tools[2].function.parameters: ")
    with pytest.raises(BadSchema, match="type object"):
        check_tools([{"type": "function", "function": {"name": "c", "parameters": {"type": "string"}}}])
