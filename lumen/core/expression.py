"""Conditions over a request, as an operator writes them: `tags.app == 'batch' and turns > 3`. Pure.

The syntax is a small part of Python's: `and`, `or`, `not`, comparisons, `in`, numbers, texts, lists of them, the fields
below, `tags.NAME`, `headers['x-name']`, and `contains(text, 'a')`, `startswith`, `endswith`, `lower`, `length`. It is
parsed and put together from this file's own functions when the configuration loads; nothing of it is ever run as code.
What is missing is `None`: it equals only `None`, and neither more nor less than it is anything.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

# What a condition may read: field → what it is.
FIELDS: Mapping[str, str] = {
    "text": "what the user asks now",
    "system": "the system prompt",
    "turns": "user turns, this one included",
    "characters": "length of `text`",
    "tokens": "estimated input tokens of the whole request",
    "tools": "functions offered",
    "images": "pictures, files and audio in the request",
    "json": "the answer must be JSON",
    "stream": "the answer is streamed",
    "limit": "the most tokens the client takes, 0 where it names none",
    "key": "the name of the key, none without one",
    "operation": "chat/completions, completions or embeddings",
}
MAPPINGS = ("tags", "headers")
LONGEST = 2000
_DEEPEST = 40

Read = Callable[[str], Any]
"""Gives the value of a field, or the mapping of that name."""
Condition = Callable[[Read], bool]
_Part = Callable[[Read], Any]


class ExpressionError(ValueError):
    """The condition cannot be used; the text says what is wrong with it. `at`: the column, from 1."""

    def __init__(self, message: str, at: int = 1) -> None:
        super().__init__(message)
        self.at = at


def condition(written: str) -> Condition:
    """What `written` asks, ready to be asked of requests. It raises nothing, whatever a request holds.

    Raises:
        ExpressionError: it is no condition.
    """
    if len(written) > LONGEST:
        raise ExpressionError(f"a condition has at most {LONGEST} characters")
    try:
        tree = ast.parse(written.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        at = error.offset if isinstance(error, SyntaxError) else None
        raise ExpressionError("this is not a condition such as tags.app == 'batch' and turns > 3", at or 1) from None
    part = _part(tree.body, 0)
    return lambda read: bool(part(read))


def _part(node: ast.expr, depth: int) -> _Part:
    if depth > _DEEPEST:
        raise _wrong(node, "this is nested too deeply")
    make = _MAKERS.get(type(node))
    if make is None:
        raise _wrong(node, "this cannot stand in a condition")
    return make(node, depth + 1)


def _bool(node: ast.BoolOp, depth: int) -> _Part:
    parts = [_part(value, depth) for value in node.values]
    if isinstance(node.op, ast.And):
        return lambda read: all(part(read) for part in parts)
    return lambda read: any(part(read) for part in parts)


def _unary(node: ast.UnaryOp, depth: int) -> _Part:
    if isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        value = node.operand.value
        if isinstance(value, int | float):
            less = -value
            return lambda read: less
    if not isinstance(node.op, ast.Not):
        raise _wrong(node, "only `not` and negative numbers are known here")
    part = _part(node.operand, depth)
    return lambda read: not part(read)


def _compare(node: ast.Compare, depth: int) -> _Part:
    parts = [_part(value, depth) for value in (node.left, *node.comparators)]
    tests = [_COMPARISONS.get(type(op)) for op in node.ops]
    steps = [(parts[i], test, parts[i + 1]) for i, test in enumerate(tests) if test is not None]
    if len(steps) < len(tests):
        raise _wrong(node, "write == or != here")
    return lambda read: all(test(left(read), right(read)) for left, test, right in steps)


def _name(node: ast.Name, depth: int) -> _Part:
    name = node.id
    if name in MAPPINGS:
        raise _wrong(node, f"write {name}.NAME or {name}['NAME']")
    if name not in FIELDS:
        raise _wrong(node, f"there is no field {name!r}; known: {', '.join(FIELDS)}, tags.NAME, headers['NAME']")
    return lambda read: read(name)


def _attribute(node: ast.Attribute, depth: int) -> _Part:
    return _entry(node, node.value, node.attr)


def _subscript(node: ast.Subscript, depth: int) -> _Part:
    if not isinstance(node.slice, ast.Constant) or not isinstance(node.slice.value, str):
        raise _wrong(node, "write the name in quotes, such as tags['app']")
    return _entry(node, node.value, node.slice.value)


def _entry(node: ast.expr, of: ast.expr, name: str) -> _Part:
    if not isinstance(of, ast.Name) or of.id not in MAPPINGS:
        raise _wrong(node, "only tags and headers have names below them")
    kind, wanted = of.id, name.lower() if of.id == "headers" else name
    return lambda read: read(kind).get(wanted)


def _constant(node: ast.Constant, depth: int) -> _Part:
    value = node.value
    if value is not None and type(value) not in (bool, int, float, str):
        raise _wrong(node, "write a number or a text in quotes")
    return lambda read: value


def _list(node: ast.List | ast.Tuple | ast.Set, depth: int) -> _Part:
    found = []
    for item in node.elts:
        if not isinstance(item, ast.Constant) or not isinstance(item.value, str | int | float | None):
            raise _wrong(item, "a list holds numbers or texts in quotes")
        found.append(item.value)
    values = tuple(found)
    return lambda read: values


def _call(node: ast.Call, depth: int) -> _Part:
    known = _FUNCTIONS.get(node.func.id) if isinstance(node.func, ast.Name) else None
    if known is None or node.keywords:
        raise _wrong(node, f"only {', '.join(_FUNCTIONS)} can be called")
    count, function = known
    if len(node.args) != count:
        raise _wrong(node, f"this takes {count} value{'s' if count > 1 else ''}")
    parts = [_part(argument, depth) for argument in node.args]
    return lambda read: function(*[part(read) for part in parts])


def _ordered(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    """Numbers with numbers and texts with texts; all else is in no order."""

    def compare(left: Any, right: Any) -> bool:
        both = (isinstance(left, int | float) and isinstance(right, int | float)) or (
            isinstance(left, str) and isinstance(right, str)
        )
        return both and test(left, right)

    return compare


def _contains(text: Any, part: Any) -> bool:
    if isinstance(text, str):
        return isinstance(part, str) and part in text
    return isinstance(text, tuple) and part in text


def _begins(text: Any, part: Any) -> bool:
    return isinstance(text, str) and isinstance(part, str) and text.startswith(part)


def _ends(text: Any, part: Any) -> bool:
    return isinstance(text, str) and isinstance(part, str) and text.endswith(part)


def _lower(text: Any) -> Any:
    return text.lower() if isinstance(text, str) else text


def _length(text: Any) -> int:
    return len(text) if isinstance(text, str) else 0


_FUNCTIONS: Mapping[str, tuple[int, Callable[..., Any]]] = {
    "contains": (2, _contains),
    "startswith": (2, _begins),
    "endswith": (2, _ends),
    "lower": (1, _lower),
    "length": (1, _length),
}
_COMPARISONS: Mapping[type, Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: _ordered(operator.lt),
    ast.LtE: _ordered(operator.le),
    ast.Gt: _ordered(operator.gt),
    ast.GtE: _ordered(operator.ge),
    ast.In: lambda left, right: _contains(right, left),
    ast.NotIn: lambda left, right: not _contains(right, left),
}
_MAKERS: Mapping[type, Callable[[Any, int], _Part]] = {
    ast.BoolOp: _bool,
    ast.UnaryOp: _unary,
    ast.Compare: _compare,
    ast.Name: _name,
    ast.Attribute: _attribute,
    ast.Subscript: _subscript,
    ast.Constant: _constant,
    ast.List: _list,
    ast.Tuple: _list,
    ast.Set: _list,
    ast.Call: _call,
}


def _wrong(node: ast.expr, message: str) -> ExpressionError:
    return ExpressionError(message, node.col_offset + 1)
