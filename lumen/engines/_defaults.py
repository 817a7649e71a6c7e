"""What an engine is started with where a model says nothing else: data in `profiles/engines/`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from lumen.core.errors import ConfigError

_LARGEST = 64 * 1024


def defaults(engine: str, facts: Collection[str]) -> dict[str, Any]:
    """The options of every section whose name is among `facts`, later sections before earlier ones.

    Raises:
        ConfigError: the file is missing or is not sections of options.
    """
    import yaml

    path = _folder() / f"{engine}.yaml"
    try:
        with path.open("rb") as file:
            data = yaml.safe_load(file.read(_LARGEST))
    except (OSError, yaml.YAMLError):
        data = None
    if not isinstance(data, Mapping) or not all(isinstance(section, Mapping) for section in data.values()):
        raise ConfigError("the defaults of this engine are damaged; install Lumen again", where=path.name)
    found: dict[str, Any] = {}
    for name, section in data.items():
        if name in facts:
            found |= section
    return found


def _folder() -> Path:
    """In an installed package the profiles lie inside `lumen`; in a checkout, beside it."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "profiles" / "engines"
    return inside if inside.is_dir() else package.parent / "profiles" / "engines"
