"""YAML text → a tree of nodes with line numbers, bounded in size, depth and count. Pure.

PyYAML's pure-Python reader is used on purpose: its marks count characters, and
`edit.py` cuts by them.
"""

from __future__ import annotations

from typing import Any

import yaml

from lumen.core.errors import ConfigError

MAX_TEXT = 1024 * 1024
MAX_DEPTH = 24
MAX_NODES = 50_000

_OPENS = (yaml.MappingStartEvent, yaml.SequenceStartEvent)
_CLOSES = (yaml.MappingEndEvent, yaml.SequenceEndEvent)
# The types a configuration is made of; dates and binary are read as the text they are written as.
_TYPED = {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float")}
# Scalars are made by methods that look at the node alone. A loader for each would be a cycle left behind.
_CONSTRUCTOR = yaml.constructor.SafeConstructor()
_TEXT = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value")


def compose(text: str, name: str) -> yaml.Node | None:
    """The one document in `text`; `None` where there is nothing but comments. `name` stands in errors.

    Raises:
        ConfigError: not YAML, too large or too deep, aliases, tags, or more than one document.
    """
    if len(text) > MAX_TEXT:
        raise ConfigError(f"larger than {MAX_TEXT // 1024} KiB; a configuration is not", where=name)
    try:
        _bound(text, name)
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context or "not YAML"
        raise ConfigError(_plain_words(problem), where=f"{name}:{mark.line + 1 if mark else 1}") from None
    except yaml.YAMLError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"not readable as YAML: {reason}", where=name) from None


def line(node: yaml.Node) -> int:
    """The line, from 1, on which `node` begins."""
    return int(node.start_mark.line) + 1


def scalar(node: yaml.ScalarNode) -> Any:
    """The value of a scalar: text, number, truth value or `None`.

    Raises:
        ValueError: it looks like a number but is not one.
    """
    if node.tag not in _TYPED:
        return node.value
    return _CONSTRUCTOR.yaml_constructors[node.tag](_CONSTRUCTOR, node)


def plain(node: yaml.Node, where: str | None) -> Any:
    """A whole tree as dicts, lists and scalars. `where`: the file's name.

    Raises:
        ConfigError: a key that is no text or stands twice, or a number that is none.
    """
    if isinstance(node, yaml.MappingNode):
        return {key: plain(value, where) for key, _, value in pairs(node, where)}
    if isinstance(node, yaml.SequenceNode):
        return [plain(item, where) for item in node.value]
    try:
        return scalar(node) if isinstance(node, yaml.ScalarNode) else None
    except ValueError:
        raise ConfigError("this is not a number", where=f"{where}:{line(node)}") from None


def pairs(node: yaml.MappingNode, where: str | None) -> list[tuple[str, yaml.Node, yaml.Node]]:
    """(key, key's node, value) of a mapping in order.

    Raises:
        ConfigError: a key that is no text, or one that stands twice.
    """
    seen: dict[str, int] = {}
    found: list[tuple[str, yaml.Node, yaml.Node]] = []
    for key, value in node.value:
        at = f"{where}:{line(key)}"
        if not isinstance(key, yaml.ScalarNode):
            raise ConfigError("a key must be text", where=at)
        if key.value in seen:
            raise ConfigError(f"{key.value!r} stands twice, first in line {seen[key.value]}", where=at)
        seen[key.value] = line(key)
        found.append((key.value, key, value))
    return found


def _bound(text: str, name: str) -> None:
    """Refuse what would be costly before a tree is built: events come one at a time, without recursion."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        at = f"{name}:{event.start_mark.line + 1}" if event.start_mark else name
        depth += isinstance(event, _OPENS) - isinstance(event, _CLOSES)
        if depth > MAX_DEPTH:
            raise ConfigError(f"nested deeper than {MAX_DEPTH} levels", where=at)
        if count > MAX_NODES:
            raise ConfigError("too many entries", where=at)
        if isinstance(event, yaml.AliasEvent):
            raise ConfigError("aliases (*name) are not read here; write the value out", where=at)
        tag = getattr(event, "tag", None)
        if tag is not None and tag not in _TEXT and tag not in _TYPED:
            raise ConfigError(f"tags ({tag}) are not read here; write the plain value", where=at)


def _plain_words(problem: str) -> str:
    """The reader's own words, with the usual cause where they are cryptic."""
    if "found character '\\t'" in problem:
        return "a tab stands where spaces must; indent with spaces"
    if "mapping values are not allowed here" in problem:
        return "a ':' stands where none may; check the indentation, and quote text that has ': ' in it"
    if "found another document" in problem:
        return "a second document begins here; a configuration is one document"
    return problem
