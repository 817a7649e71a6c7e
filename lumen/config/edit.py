"""Changes to a configuration file that touch only the lines they are about.

The text is cut at the places where the reader found the key, so every other byte, comments and order stay.
A section in flow style (`{a: 1}`) cannot be cut by lines and is written out again as a block. Every result is
read back: it must be a valid configuration and differ from the old one in nothing but the change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from lumen.config import nodes
from lumen.config.load import parse, read
from lumen.config.schema import Config
from lumen.core.errors import ConfigError
from lumen.files import locked, write_atomic

Keys = tuple[str, ...]
_NEW_FILE = "# Lumen's configuration; `lumen config path` says where it is, `lumen config check` tests it.\n"


class _Dumper(yaml.SafeDumper):
    """Lists stand two spaces in, as people write them."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def set_route(text: str, name: str, route: Mapping[str, Any]) -> str:
    """`text` with the keys in `route` set for that route; keys it had besides them stay. Pure.

    `route` holds plain data as a file would: `targets`, `policy`, `defaults`, `timeouts`. The latter two are laid
    over what is there, and a `None` in them removes that key.

    Raises:
        ConfigError: the result would not be a valid configuration.
    """
    for key, value in route.items():
        text = _laid_over(text, ("routes", name, key), value)
    return text


def _laid_over(text: str, keys: Keys, value: Any) -> str:
    """A section over what is there, `None` in it removing that key; anything else in its place."""
    if not isinstance(value, Mapping):
        return put(text, keys, value)
    for inner, item in value.items():
        text = put(text, (*keys, inner), item) if item is not None else cut(text, (*keys, inner))
    return text


def remove_route(text: str, name: str) -> str:
    """`text` without that route. Pure.

    Raises:
        ConfigError: it declares no such route.
    """
    return cut(text, ("routes", name))


def set_model(text: str, name: str, model: Mapping[str, Any]) -> str:
    """`text` with the keys in `model` set for that local model; those it had besides them stay. Pure.

    `None` removes a key, where it is there. `adapters` and `options` are laid over what is there.

    Raises:
        ConfigError: the file is laid out so that it cannot be changed safely; what a section loses is not in it.
    """
    there = _below(_plain(_root(text)), ("models", name)) or {}
    for key, value in model.items():
        if value is not None:
            text = _laid_over(text, ("models", name, key), value)
        elif key in there:
            text = cut(text, ("models", name, key))
    return text


def remove_model(text: str, name: str) -> str:
    """`text` without that local model. Pure.

    Raises:
        ConfigError: it declares no such model.
    """
    return cut(text, ("models", name))


def set_provider(text: str, name: str, provider: Mapping[str, Any]) -> str:
    """`text` with the keys in `provider` set for that provider; those it had besides them stay. Pure.

    `None` removes a key. `capabilities` is laid over what is there.

    Raises:
        ConfigError: the file is laid out so that it cannot be changed safely.
    """
    there = _below(_plain(_root(text)), ("providers", name))
    if not isinstance(there, dict):
        text = put(text, ("providers", name), {})
    for key, value in provider.items():
        if key == "capabilities" and value:
            for inner, item in value.items():
                text = put(text, ("providers", name, key, inner), item)
        elif value is not None:
            text = put(text, ("providers", name, key), value)
        elif isinstance(there, dict) and key in there:
            text = cut(text, ("providers", name, key))
    return text


def set_price(text: str, provider: str, model: str, price: Mapping[str, Any]) -> str:
    """`text` with the keys in `price` set for that model of a provider; `None` removes one, where it is there. Pure.

    Raises:
        ConfigError: the file is laid out so that it cannot be changed safely.
    """
    keys = ("providers", provider, "models", model, "price")
    there = _below(_plain(_root(text)), keys) or {}
    wanted = {key: value for key, value in price.items() if value is not None or key in there}
    return _laid_over(text, keys, wanted)


def remove_provider(text: str, name: str) -> str:
    """`text` without that provider. Pure.

    Raises:
        ConfigError: it declares no such provider.
    """
    return cut(text, ("providers", name))


def edit(path: Path, change: Callable[[str], str]) -> Config:
    """Lock, read, change, validate and replace the file at `path`, which is created where it is missing.

    Raises:
        ConfigError: the result is not valid; the file is as it was.
        TimeoutError: another process is changing it.
        OSError: it cannot be written.
    """
    with locked(path):
        old = read(path) if path.exists() else _NEW_FILE
        _plain(nodes.compose(old, str(path)), str(path))  # what is wrong already is told with its line
        new = change(old)
        config = parse(new, str(path))
        if new != old or not path.exists():
            write_atomic(path, new.encode())
        return config


def put(text: str, keys: Keys, value: Any) -> str:
    """`text` with `value` (plain data) at `keys`; sections on the way are made where they are missing. Pure.

    Raises:
        ConfigError: not YAML, or laid out so that it cannot be changed safely.
    """
    root = _root(text)
    wanted = _plain(root)
    _set(wanted, keys, value)
    return _checked(_put(text, root, keys, value), wanted, keys)


def cut(text: str, keys: Keys) -> str:
    """`text` without the key at `keys`. Pure.

    Raises:
        ConfigError: there is no such key, or it cannot be removed safely.
    """
    root = _root(text)
    wanted = _plain(root)
    section = _below(wanted, keys[:-1])
    if not isinstance(section, dict) or keys[-1] not in section:
        raise ConfigError(f"{'.'.join(keys)} is not in the configuration")
    del section[keys[-1]]
    new = _cut(text, root, keys)
    if not section and len(keys) > 1 and _below(_plain(_root(new)), keys[:-1]) is None:
        # A section that lost its last entry reads as nothing, which is the same to a configuration.
        _set(wanted, keys[:-1], None)
    return _checked(new, wanted, keys)


def _root(text: str) -> yaml.Node | None:
    return nodes.compose(text, "the configuration")


def _plain(root: yaml.Node | None, name: str = "the configuration") -> dict[str, Any]:
    data = {} if root is None else nodes.plain(root, name)
    if data is not None and not isinstance(data, dict):
        raise ConfigError("a configuration is made of keys with values", where=name)
    return data or {}


def _below(data: Any, keys: Keys) -> Any:
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data


def _set(data: dict[str, Any], keys: Keys, value: Any) -> None:
    for key in keys[:-1]:
        below = data.get(key)
        if not isinstance(below, dict):
            below = data[key] = {}
        data = below
    data[keys[-1]] = value


def _checked(text: str, wanted: dict[str, Any], keys: Keys) -> str:
    """Proof that the cut changed what it should and nothing else."""
    try:
        same = _plain(_root(text)) == wanted
    except ConfigError:
        same = False
    if not same:
        raise ConfigError(f"the file is laid out so that {'.'.join(keys)} cannot be changed safely; edit it by hand")
    return text


def _put(text: str, root: yaml.Node | None, keys: Keys, value: Any) -> str:
    if not isinstance(root, yaml.MappingNode):
        # Nothing but comments so far.
        lead = text if not text or text.endswith("\n") else text + "\n"
        return lead + _entry(keys[0], _nested(keys[1:], value), 0, _newline(text)) + _newline(text)
    node: yaml.MappingNode = root
    for depth, key in enumerate(keys):
        if node.flow_style:
            return _rewritten(text, root, keys[:depth], keys, value)
        found = next(((k, v) for k, v in node.value if k.value == key), None)
        if found is None:
            return _inserted(text, node, key, _nested(keys[depth + 1 :], value))
        if depth == len(keys) - 1 or not isinstance(found[1], yaml.MappingNode):
            return _replaced(text, *found, _nested(keys[depth + 1 :], value))
        node = found[1]
    raise AssertionError("unreachable: the last key always returns")


def _rewritten(text: str, root: yaml.MappingNode, section: Keys, keys: Keys, value: Any) -> str:
    """The whole flow-style section that holds the change, written again as a block."""
    data = _plain(root)
    _set(data, keys, value)
    if not section:
        return _write(data, flow=False)
    for key in section:
        data = data[key]
    return _put(text, root, section, data)


def _cut(text: str, root: yaml.Node | None, keys: Keys) -> str:
    node: Any = root
    for depth, key in enumerate(keys):
        if node.flow_style:
            data = nodes.plain(node, "the configuration")
            below = data
            for step in keys[depth:-1]:
                below = below[step]
            del below[keys[-1]]
            if not depth:
                return _write(data, flow=False)
            return _put(text, root, keys[:depth], data)
        key_node, node = next((k, v) for k, v in node.value if k.value == key)
    start = text.rfind("\n", 0, key_node.start_mark.index) + 1
    end = text.find("\n", _end(key_node, node))
    return text[:start] + (text[end + 1 :] if end >= 0 else "")


def _replaced(text: str, key: yaml.Node, old: yaml.Node, value: Any) -> str:
    start, end = key.start_mark, _end(key, old)
    written = text[start.index : key.end_mark.index] + ":" + _dump(value, start.column, _newline(text))
    # A block scalar's node ends on the line after it.
    tail = _newline(text) if text[end - 1 : end] == "\n" else ""
    return text[: start.index] + written + tail + text[end:]


def _inserted(text: str, node: yaml.MappingNode, key: str, value: Any) -> str:
    """A new last entry, after the last line that holds something, before comments that follow it."""
    last_key, last = node.value[-1]
    column: int = node.value[0][0].start_mark.column
    end = _end(last_key, last)
    if text[end - 1 : end] != "\n":
        eol = text.find("\n", end)
        end = len(text) if eol < 0 else eol + 1
    head = text[:end]
    if not head.endswith("\n"):
        head += _newline(text)
    return head + " " * column + _entry(key, value, column, _newline(text)) + _newline(text) + text[end:]


def _end(key: yaml.Node, node: yaml.Node) -> int:
    """Where the last character of a value stands; a block's own mark lies beyond later comments."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[0], last[1]) if isinstance(node, yaml.MappingNode) else _end(last, last)
    return max(int(node.end_mark.index), int(key.end_mark.index) + (node is not key))


def _nested(keys: Keys, value: Any) -> Any:
    for key in reversed(keys):
        value = {key: value}
    return value


def _entry(key: str, value: Any, column: int, newline: str) -> str:
    return _scalar(key) + ":" + _dump(value, column, newline)


def _dump(value: Any, column: int, newline: str) -> str:
    """A value as it stands after `key:`, in a block indented by two more than `column`."""
    if not isinstance(value, (Mapping, list)) or not value:
        return " " + _scalar(value)
    pad = " " * (column + 2)
    lines = _write(value, flow=False).splitlines()
    return newline + newline.join(pad + line if line else line for line in lines)


def _scalar(value: Any) -> str:
    return _write(value, flow=True).removesuffix("...\n").strip()


def _write(value: Any, *, flow: bool) -> str:
    written = yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=flow, width=10_000
    )
    return str(written)


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"
