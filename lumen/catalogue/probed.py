"""What was found out about models by asking them, kept in a file. It counts more than what is declared of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from lumen.config.schema import Abilities
from lumen.files import locked, write_atomic

_MAX_FILE = 4 * 1024 * 1024
_NAMES = frozenset(one.name for one in fields(Abilities))
_WAYS = frozenset({"none", "prefix", "continue", "native"})


@dataclass(frozen=True, slots=True)
class Probed:
    """Of one provider. `base_url`: where it was asked; nothing of it holds for another address. `models`: by name."""

    base_url: str
    models: Mapping[str, Abilities] = field(default_factory=dict)


def read(path: Path) -> dict[str, Probed]:
    """What is known, by provider; nothing where there is no such file or it cannot be read. Blocking."""
    return {name: Probed(one["base_url"], _abilities(one["models"])) for name, one in _plain(path).items()}


def keep(path: Path, provider: str, base_url: str, model: str, found: Mapping[str, Any]) -> None:
    """Remember what a model was found to do; what stayed unclear (`None`) is as it was. Blocking.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(path):
        known = _plain(path)
        before = known.get(provider)
        if before is None or before["base_url"] != base_url:
            before = {"base_url": base_url, "models": {}}
        clear = {name: value for name, value in found.items() if value is not None}
        before["models"][model] = {**before["models"].get(model, {}), **clear}
        _write(path, {**known, provider: before})


def forget(path: Path, provider: str) -> bool:
    """Remove what was found out about a provider; whether there was anything. Blocking.

    Raises:
        OSError: the file cannot be written.
    """
    if not path.exists():
        return False
    with locked(path):
        known = _plain(path)
        there = known.pop(provider, None) is not None
        if there:
            _write(path, known)
    return there


def _write(path: Path, known: Mapping[str, Any]) -> None:
    write_atomic(path, json.dumps(known, indent=1, sort_keys=True).encode() + b"\n")


def _plain(path: Path) -> dict[str, Any]:
    """The file's own form, without what is none of it."""
    known: Any = None
    with suppress(OSError, ValueError, RecursionError), path.open("rb") as file:
        known = json.loads(file.read(_MAX_FILE))
    if not isinstance(known, dict):
        return {}
    return {name: one for name, one in known.items() if _is_entry(one)}


def _is_entry(one: Any) -> bool:
    return (
        isinstance(one, dict)
        and isinstance(one.get("base_url"), str)
        and isinstance(one.get("models"), dict)
        and all(isinstance(said, dict) for said in one["models"].values())
    )


def _abilities(models: Mapping[str, Mapping[str, Any]]) -> dict[str, Abilities]:
    return {
        model: Abilities(**{name: value for name, value in said.items() if _is_ability(name, value)})
        for model, said in models.items()
    }


def _is_ability(name: str, value: Any) -> bool:
    if name == "prefill":
        return value in _WAYS
    return name in _NAMES and name != "max_tokens_field" and isinstance(value, bool)
