"""A sandbox for chat templates, which come with a model file from anywhere: no reach into Python, and bounded work.

Jinja's own sandbox closes the way to attributes and code. What it leaves open is work: nested loops, recursive macros,
strings that double. `meter` charges for those; here the syntax tree is rewritten so that they all pass by it. It counts
and never measures time, so the same template on the same conversation always ends the same way.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import Environment, TemplateSyntaxError, nodes
from jinja2 import TemplateError as JinjaError
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from lumen.workers.llamacpp.chat.meter import (
    BASE,
    CALL,
    MACRO,
    METER,
    STEP,
    STR_METHODS,
    Meter,
    OverBudget,
    formats,
    method,
    operate,
    spend,
    weigh,
)

MAX_SOURCE = 512 * 1024

#: The longest prompt text: many times the largest context there is.
MAX_TEXT = 16_000_000

_FILTERS = frozenset(
    {
        *("abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float"),
        *("int", "items", "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr"),
        *("reverse", "round", "safe", "select", "selectattr", "sort", "striptags", "sum", "title", "trim"),
        *("unique", "upper", "wordcount"),
    }
)


class TemplateError(ValueError):
    """A template that does not compile, or a conversation that it refuses; the text is for the client."""


class _Refusal(Exception):
    """The template called `raise_exception`."""


class Sandbox:
    """One compiled template. Raises TemplateError where the source does not compile.

    now: the clock behind `strftime_now`; without one, templates see no such function.
    """

    def __init__(self, source: str, now: Callable[[], datetime] | None = None) -> None:
        if len(source) > MAX_SOURCE:
            raise TemplateError(f"the chat template is longer than {MAX_SOURCE:,} characters")
        environment = _Environment()
        if now is not None:
            clock = now
            environment.globals["strftime_now"] = lambda form: clock().strftime(str(form)[:200])
        token = METER.set(Meter(BASE))
        try:
            self._template = environment.from_string(source)
        except (JinjaError, SyntaxError, RecursionError, OverBudget) as error:
            raise TemplateError(f"the chat template does not compile: {_reason(error)}") from None
        finally:
            METER.reset(token)

    def render(self, variables: Mapping[str, Any], allowance: int = 0) -> str:
        """The rendered text. `allowance`: units of work beyond the base (longer conversations cost more). Raises
        TemplateError."""
        token = METER.set(Meter(BASE + allowance))
        try:
            return "".join(self._parts(variables))
        except _Refusal as refusal:
            reason = f"refuses this conversation: {refusal}"
        except OverBudget as error:
            reason = f"was stopped: {error}"
        except RecursionError:
            reason = "was stopped: it calls itself too deeply"
        except SecurityError as error:
            reason = f"did something forbidden: {_reason(error)}"
        except (JinjaError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            reason = f"failed: {_reason(error)}"
        finally:
            METER.reset(token)
        raise TemplateError(f"the model's chat template {reason}")

    def _parts(self, variables: Mapping[str, Any]) -> Iterator[str]:
        size = 0
        for part in self._template.generate(variables):
            size += len(part)
            if size > MAX_TEXT:
                raise OverBudget(f"its text is longer than {MAX_TEXT:,} characters")
            yield part


def _reason(error: BaseException) -> str:
    where = f" (line {error.lineno})" if isinstance(error, TemplateSyntaxError) else ""
    return f"{str(error)[:300] or type(error).__name__}{where}"


class _Generation(Extension):
    """`{% generation %} … {% endgeneration %}`, which marks training text and renders as its body."""

    tags = {"generation"}  # noqa: RUF012 - Jinja declares this attribute so

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Metering(NodeTransformer):
    """Sends every loop and every `~` past the meter."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        weight = STEP + _static_text(node)
        node.iter = nodes.Filter(node.iter, "_each", [nodes.Const(weight)], [], None, None)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return nodes.Filter(nodes.List(node.nodes), "_text", [], [], None, None, lineno=node.lineno)


def _static_text(node: nodes.Node) -> int:
    return sum(len(data.data) for data in node.find_all(nodes.TemplateData))


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "*", "%", "**"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation], finalize=_finalize
        )
        self._macro_text = 0
        filters = {name: _charged(self.filters[name]) for name in _FILTERS}
        own = {"tojson": _tojson, "join": _join, "replace": _replace, "indent": _indent, "string": _string}
        self.filters = {**filters, **own, "format": _format, "_each": _each, "_text": _text}
        kept = {name: self.globals[name] for name in ("range", "namespace", "dict")}
        self.globals = {**kept, "raise_exception": _raise_exception}

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        self._macro_text = max((_static_text(macro) for macro in tree.find_all(nodes.Macro)), default=0)
        _Metering().visit(tree)
        return tree

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str) and attr not in STR_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        # str.format pads to any width and reaches attributes; no template needs it. It is refused as an attribute.
        return None

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        operate(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        spend(MACRO + __self._macro_text if isinstance(__obj, Macro) else CALL)
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str):
            method(owner, __obj.__name__, args)
        return super().call(__context, __obj, *args, **kwargs)


def _finalize(value: Any) -> Any:
    weigh(value)
    return value


def _raise_exception(message: object = "") -> NoReturn:
    raise _Refusal(str(message)[:500])


def _each(iterable: Iterable[Any], weight: int) -> Iterator[Any]:
    for item in iterable:
        spend(weight)
        yield item


def _text(values: list[Any]) -> str:
    weigh(values)
    return "".join(map(str, values))


def _string(value: Any) -> str:
    return _text([value])


def _tojson(value: Any, indent: int | None = None, sort_keys: bool = False, **other: Any) -> str:
    """JSON as chat templates expect it: not escaped for HTML, not for ASCII."""
    weigh(value)
    if indent is not None and not 0 <= indent <= 8:
        raise OverBudget("it indents too far")
    ensure_ascii = other.get("ensure_ascii", False) is True
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        sort_keys=sort_keys,
        separators=other.get("separators"),
    )


def _join(values: Iterable[Any], separator: Any = "", attribute: str | int | None = None) -> str:
    items = list(values)
    if attribute is not None:
        items = [item.get(attribute, "") if isinstance(item, dict) else item[attribute] for item in items]
    weigh(items)
    spend(len(str(separator)) * len(items))
    return str(separator).join(map(str, items))


def _replace(value: Any, old: Any, new: Any, count: int = -1) -> str:
    text, before, after = str(value), str(old), str(new)
    method(text, "replace", (before, after))
    return text.replace(before, after, count)


def _indent(value: Any, width: int = 4, first: bool = False, blank: bool = False) -> str:
    if not isinstance(width, int) or not 0 <= width <= 64:
        raise OverBudget("it indents too far")
    text = str(value)
    spend(len(text) * 2 + width * (text.count("\n") + 1))
    pad = " " * width
    lines = text.split("\n")
    shown = [pad + line if (line or blank) and (number or first) else line for number, line in enumerate(lines)]
    return "\n".join(shown)


def _format(form: Any, *args: Any, **kwargs: Any) -> str:
    formats(str(form))
    weigh([args, kwargs])
    return str(form) % (kwargs or args)


def _charged(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter of Jinja's that pays for the length of what it is given (its marks, such as pass_context, kept)."""

    def charged(*args: Any, **kwargs: Any) -> Any:
        for arg in args:
            if isinstance(arg, (str, list, tuple, Mapping)) and not isinstance(arg, (Context, Environment)):
                spend(len(arg))
        return function(*args, **kwargs)

    for key, value in getattr(function, "__dict__", {}).items():
        setattr(charged, key, value)
    return charged
