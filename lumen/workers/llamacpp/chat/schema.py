"""JSON schemas of requests -> GBNF, bounded so that no schema a client sends can stall or kill the engine.

Bounds count (parts, levels, characters) and never measure time, so that the same schema always has the same answer.
Nothing is ever fetched: references point into the schema itself.
"""

from __future__ import annotations

from typing import Any

from lumen.workers.llamacpp.chat.gbnf import Grammar, Rules, SchemaError
from lumen.workers.llamacpp.chat.schema_rules import SchemaWriter
from lumen.workers.llamacpp.chat.tools import Tools, function_of

#: JSON values in one schema, characters of its texts, and levels of JSON nesting.
MAX_NODES = 2_000
MAX_CHARS = 128 * 1024
MAX_LEVELS = 96


class BadSchema(ValueError):
    """A schema that cannot be compiled. `param` names the request field, `message` says what is wrong."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(f"{param}: {message}")
        self.param = param
        self.message = message


def response_grammar(response_format: dict[str, Any] | None) -> Grammar | None:
    """Grammar of `response_format`: None for "text" or none. Raises BadSchema."""
    rules = Rules()
    name = answer_rule(rules, response_format)
    return None if name is None else rules.grammar(name)


def answer_rule(rules: Rules, response_format: dict[str, Any] | None) -> str | None:
    """The rule that `response_format` holds an answer to: None for "text" or none. Raises BadSchema."""
    kind = response_format.get("type") if response_format is not None else "text"
    if response_format is None or kind == "text":
        return None
    if kind == "json_object":
        return rules.any_object()
    if kind != "json_schema":
        raise BadSchema("response_format.type", "must be text, json_object or json_schema")
    wrapper = response_format.get("json_schema")
    if not isinstance(wrapper, dict) or "schema" not in wrapper:
        raise BadSchema("response_format.json_schema", "must be an object that holds name and schema")
    param = "response_format.json_schema.schema"
    return _compile(rules, wrapper["schema"], "answer", wrapper.get("strict") is True, param)


def check_tools(tools: Tools) -> None:
    """Raises BadSchema("tools[i].function.parameters", …) for the first tool whose parameters do not compile."""
    for number, tool in enumerate(tools):
        try:
            arguments_rule(Rules(), function_of(tool))
        except BadSchema as error:
            raise BadSchema(f"tools[{number}].{error.param}", error.message) from None


def arguments_rule(rules: Rules, function: dict[str, Any]) -> str:
    """The rule of a function's arguments object. Raises BadSchema("function.parameters", …)."""
    schema = function.get("parameters")
    if schema is None:
        schema = {"type": "object", "properties": {}}
    hint = f"{function.get('name', 'tool')}-arguments"
    name = _compile(rules, schema, hint, function.get("strict") is True, "function.parameters")
    if not isinstance(schema, dict) or schema.get("type", "object") != "object":
        raise BadSchema("function.parameters", "must be a schema of type object")
    return name


def _compile(rules: Rules, schema: Any, hint: str, strict: bool, param: str) -> str:
    try:
        _measure(schema)
        return SchemaWriter(rules, schema, strict).write(hint)
    except SchemaError as error:
        raise BadSchema(param, str(error)) from None
    except RecursionError:
        raise BadSchema(param, "it is nested too deeply") from None


def _measure(schema: Any) -> None:
    """Refuses what is too large to look at, without recursion (the nesting itself may be the attack)."""
    nodes = chars = 0
    todo = [(schema, 0)]
    while todo:
        value, level = todo.pop()
        nodes += 1
        if isinstance(value, dict):
            chars += sum(map(len, value))
            todo.extend((inner, level + 1) for inner in value.values())
        elif isinstance(value, list):
            todo.extend((inner, level + 1) for inner in value)
        elif isinstance(value, str):
            chars += len(value)
        if level > MAX_LEVELS:
            raise SchemaError(f"it is nested deeper than {MAX_LEVELS} levels")
        if nodes + len(todo) > MAX_NODES:
            raise SchemaError(f"it has more than {MAX_NODES:,} values")
        if chars > MAX_CHARS:
            raise SchemaError(f"its texts are longer than {MAX_CHARS:,} characters")
