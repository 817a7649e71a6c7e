"""Engines by name: one file in this folder is one engine, imported only when a model asks for it."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

import lumen.engines
from lumen.core.errors import ConfigError
from lumen.engines._options import nearest
from lumen.engines.base import Engine

_NOT_ENGINES = frozenset({"base", "registry"})


@cache
def names() -> tuple[str, ...]:
    """Every engine there is, by file name; none is imported."""
    found = (module.name for module in iter_modules(lumen.engines.__path__) if not module.ispkg)
    return tuple(sorted(name for name in found if name not in _NOT_ENGINES and not name.startswith("_")))


@cache
def engine(name: str) -> Engine:
    """The engine of that name: the object `ENGINE` of its file.

    Raises:
        ConfigError: there is no such file; the message names the nearest one.
    """
    if name not in names():
        raise ConfigError(f"there is no engine {name!r}; {nearest(name, names())}")
    found: Engine = import_module(f"lumen.engines.{name}").ENGINE
    return found
