"""A YAML document → a dataclass, by its types. Every error says file, line, what was expected, and the nearest name."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from lumen.config import nodes
from lumen.config.schema import AMOUNT, DURATION, RATE, SHARE, SIZE, Target
from lumen.config.units import parse_duration, parse_share, parse_size
from lumen.core.errors import ConfigError
from lumen.core.money import parse_amount, parse_rate

T = TypeVar("T")
Keys = tuple[str | int, ...]  # routes, fast, targets, 0
_UNITS: dict[str, tuple[str, Callable[[Any], float | int]]] = {
    DURATION: ("a duration such as 300ms, 5s or 2m", parse_duration),
    # A size with a fraction of a byte is refused by its text.
    SIZE: ("a size such as 32MiB", lambda value: parse_size(value if isinstance(value, int) else str(value))),
    RATE: ("a price such as 0.60/1M (dollars a million tokens)", lambda value: parse_rate(_rate(value))),
    SHARE: ("a share such as 1% or 0.01", parse_share),
    AMOUNT: ("an amount such as 5usd or 0.05usd", lambda value: parse_amount(str(value))),
}
_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


@dataclass(frozen=True, slots=True)
class At:
    """Where each key of a file stands, for errors. Without lines an error names the key alone."""

    name: str | None = None
    lines: dict[tuple[str | int, ...], int] = field(default_factory=dict)

    def error(self, path: tuple[str | int, ...], message: str) -> ConfigError:
        """An error at `path`, or at the nearest key around it whose line is known."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.lines:
                return ConfigError(message, where=f"{self.name}:{self.lines[path[:length]]}")
        return ConfigError(message, where=self.name)


def document(text: str, name: str, cls: type[T], empty: T | None = None) -> tuple[T, At]:
    """A file read into the dataclass `cls`, with where each key stands; `empty` where nothing stands in it. Pure.

    Raises:
        ConfigError: with `name:line` of the offending key.
    """
    root = nodes.compose(text, name)
    if root is None:
        if empty is not None:
            return empty, At(name)
        raise ConfigError("nothing but comments stands here", where=name)
    walk = _Walk(name)
    found: T = walk.value(root, cls, ())
    return found, walk.at


@cache
def hints(cls: type) -> Mapping[str, Any]:
    """The types of a section's fields, with their units."""
    return get_type_hints(cls, include_extras=True)


class _Walk:
    """Nodes → values by type, remembering the line of everything for the checks that follow."""

    def __init__(self, name: str) -> None:
        self.at = At(name)

    def value(self, node: yaml.Node, hint: Any, path: Keys) -> Any:
        self.at.lines.setdefault(path, nodes.line(node))
        origin, args = get_origin(hint), get_args(hint)
        if hint is Any:
            return nodes.plain(node, self.at.name)
        if origin in (Union, types.UnionType):
            return None if _is_null(node) else self.value(node, args[0], path)
        if origin is Annotated:
            return self._unit(node, args[1], path)
        if origin is Literal:
            return self._choice(node, args, path)
        if is_dataclass(hint):
            return self._section(node, hint, path)
        if origin is tuple:
            return self._list(node, args[0], path)
        if origin is Mapping:
            return self._mapping(node, args[1], path)
        return self._scalar(node, hint, path)

    def _section(self, node: yaml.Node, cls: Any, path: Keys, base: Any = None) -> Any:
        """`base`: the section as it is without the file; what the file leaves out stays as it is there."""
        if cls is Target and isinstance(node, yaml.ScalarNode):
            return Target(self._scalar(node, str, path))
        known, given = hints(cls), {}
        for key, key_node, value in self._pairs(node, path):
            if key not in known:
                raise self._unknown(key, known, (*path, key), key_node)
            self.at.lines[(*path, key)] = nodes.line(key_node)
            # An empty section (`routes:` with all its entries commented out) is the default one.
            if not (_is_null(value) and _may_be_empty(known[key])):
                default = _default(cls, key)
                if is_dataclass(default):
                    given[key] = self._section(value, known[key], (*path, key), default)
                else:
                    given[key] = self.value(value, known[key], (*path, key))
        if base is not None:
            return replace(base, **given)
        missing = [f.name for f in fields(cls) if f.name not in given and _default(cls, f.name) is MISSING]
        if missing:
            raise self.at.error(path, f"{_name(path)} needs {missing[0]!r}")
        return cls(**given)

    def _mapping(self, node: yaml.Node, hint: Any, path: Keys) -> dict[str, Any]:
        found = {}
        for key, key_node, value in self._pairs(node, path):
            self.at.lines[(*path, key)] = nodes.line(key_node)
            found[key] = self.value(value, hint, (*path, key))
        return found

    def _list(self, node: yaml.Node, hint: Any, path: Keys) -> tuple[Any, ...]:
        if not isinstance(node, yaml.SequenceNode):
            raise self.at.error(path, f"{_name(path)}: expected a list, got {_kind(node)}")
        return tuple(self.value(item, hint, (*path, i)) for i, item in enumerate(node.value))

    def _pairs(self, node: yaml.Node, path: Keys) -> list[tuple[str, yaml.Node, yaml.Node]]:
        if _is_null(node):
            return []
        if not isinstance(node, yaml.MappingNode):
            raise self.at.error(path, f"{_name(path)}: expected keys with values, got {_kind(node)}")
        return nodes.pairs(node, self.at.name)

    def _unit(self, node: yaml.Node, unit: str, path: Keys) -> float | int:
        value = self._read(node, path)
        wanted, parse = _UNITS[unit]
        if not isinstance(value, (str, int, float)) or isinstance(value, bool):
            raise self.at.error(path, f"{_name(path)}: expected {wanted}, got {_kind(node)}")
        try:
            return parse(value)
        except InvalidOperation:
            raise self.at.error(path, f"{_name(path)}: expected {wanted}") from None
        except ValueError as error:
            raise self.at.error(path, f"{_name(path)}: {error}") from None

    def _choice(self, node: yaml.Node, choices: tuple[str, ...], path: Keys) -> str:
        value = node.value if isinstance(node, yaml.ScalarNode) else None
        if value in choices:
            return str(value)
        near = get_close_matches(str(value), choices, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise self.at.error(path, f"{_name(path)}: expected one of {', '.join(choices)}{hint}")

    def _scalar(self, node: yaml.Node, kind: Any, path: Keys) -> Any:
        value = self._read(node, path)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            try:
                return float(value)
            except OverflowError:
                raise self.at.error(path, f"{_name(path)}: the number is too large") from None
        if type(value) is kind:
            return value
        hint = "; put it in quotes" if kind is str and isinstance(value, (bool, int, float)) else ""
        raise self.at.error(path, f"{_name(path)}: expected {_WORDS[kind]}, got {_kind(node)}{hint}")

    def _read(self, node: yaml.Node, path: Keys) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            return None
        try:
            return nodes.scalar(node)
        except ValueError:
            raise self.at.error(path, f"{_name(path)}: this is not a number") from None

    def _unknown(self, key: str, known: Mapping[str, Any], path: Keys, node: yaml.Node) -> ConfigError:
        self.at.lines[path] = nodes.line(node)
        near = get_close_matches(key, known, 1, 0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(sorted(known))}"
        return self.at.error(path, f"unknown key {key[:80]!r}; {hint}")


def _default(cls: type, name: str) -> Any:
    """A field's value where the file says nothing; `MISSING` where it must say something."""
    found = next(f for f in fields(cls) if f.name == name)
    return found.default if found.default_factory is MISSING else found.default_factory()


def _may_be_empty(hint: Any) -> bool:
    return is_dataclass(hint) or get_origin(hint) is Mapping


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def _rate(value: str | int | float) -> str:
    """A plain number is dollars a million tokens."""
    return value if isinstance(value, str) and "/" in value else f"{Decimal(str(value)):f}/1M"


def _kind(node: yaml.Node) -> str:
    """What stands there, in words; never the value itself, which may be a secret."""
    if isinstance(node, yaml.MappingNode):
        return "keys with values"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    kinds = {"null": "nothing", "bool": "true or false", "int": "a whole number", "float": "a number"}
    return kinds.get(node.tag.rpartition(":")[2], "text")


def _name(path: Keys) -> str:
    """`routes.fast.targets[0]`; the document itself is "a configuration"."""
    if not path:
        return "a configuration"
    out = str(path[0])
    for part in path[1:]:
        out += f"[{part}]" if isinstance(part, int) else f".{part}"
    return out
