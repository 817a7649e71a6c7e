from __future__ import annotations

from typing import Any

import pytest

from lumen.learning.schema import fits, problem

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "minLength": 1}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("value", "good"),
    [
        ({"name": "a"}, True),
        ({"name": "a", "age": 3}, True),
        ({"name": "a", "age": 3.0}, True),
        ({"name": "a", "age": 3.5}, False),
        ({"name": "a", "age": True}, False),
        ({"name": "a", "age": -1}, False),
        ({"name": ""}, False),
        ({"age": 3}, False),
        ({"name": "a", "more": 1}, False),
        ([], False),
        (None, False),
    ],
)
def test_an_object(value: Any, good: bool) -> None:
    assert fits(value, PERSON) is good


@pytest.mark.parametrize(
    ("schema", "fit", "unfit"),
    [
        (True, [1, None], []),
        (False, [], [1, None]),
        ({"type": ["string", "null"]}, ["a", None], [1, False]),
        ({"enum": [1, "a"]}, [1, "a"], [True, 2]),
        ({"const": {"a": [1]}}, [{"a": [1]}], [{"a": [2]}]),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, [0.5, 1], [0, 2, True]),
        ({"exclusiveMaximum": 3, "multipleOf": 0.5}, [1, 2.5, "text"], [3, 0.3]),
        ({"pattern": "^a+$", "maxLength": 3}, ["a", "aaa", 7], ["b", "aaaa"]),
        ({"items": {"type": "integer"}, "minItems": 1, "maxItems": 2}, [[1], [1, 2]], [[], [1, 2, 3], ["a"]]),
        ({"uniqueItems": True}, [[1, 2], [1, True]], [[1, 1], [{"a": 1}, {"a": 1}]]),
        ({"minProperties": 1, "maxProperties": 1}, [{"a": 1}], [{}, {"a": 1, "b": 2}]),
        ({"additionalProperties": {"type": "string"}}, [{"a": "b"}], [{"a": 1}]),
        ({"anyOf": [{"type": "string"}, {"minimum": 5}]}, ["a", 6], [4]),
        ({"allOf": [{"minimum": 1}, {"maximum": 2}]}, [1, 2], [0, 3]),
        ({"oneOf": [{"minimum": 1}, {"maximum": 2}]}, [0, 3], [1, 2]),
        ({"not": {"type": "string"}}, [1], ["a"]),
    ],
)
def test_every_keyword(schema: Any, fit: list[Any], unfit: list[Any]) -> None:
    assert problem(schema) is None
    assert all(fits(value, schema) for value in fit)
    assert not any(fits(value, schema) for value in unfit)


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (7, "an object"),
        ({"$ref": "#/x"}, "'$ref' is not understood"),
        ({"properties": {"a": {"if": {}}}}, "'if' is not understood"),
        ({"type": "text"}, "no type 'text'"),
        ({"pattern": "("}, "no regular expression"),
        ({"anyOf": [{"dependencies": {}}]}, "'dependencies'"),
    ],
)
def test_what_is_not_understood_is_refused(schema: Any, why: str) -> None:
    assert why in str(problem(schema))


def test_a_schema_too_deep_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(100):
        schema = {"items": schema}
    assert "too deeply" in str(problem(schema))
