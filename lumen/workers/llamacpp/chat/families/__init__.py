"""Tool-call families, found by file name: a new family is one file here that binds `FAMILY`."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from lumen.workers.llamacpp.chat.families.base import ToolFamily


@cache
def names() -> tuple[str, ...]:
    """Names of the files here that may hold a family."""
    return tuple(sorted(info.name for info in pkgutil.iter_modules(__path__) if info.name != "base"))


@cache
def load(name: str) -> ToolFamily:
    """The family in file `name`. Raises LookupError for a name not in `names()`."""
    if name not in names():
        raise LookupError(f"no tool-call family is called {name!r}; there are {', '.join(names())}")
    family: ToolFamily = importlib.import_module(f"{__name__}.{name}").FAMILY
    return family


def detect(template: str) -> ToolFamily:
    """The family of a chat template's source: the first, by falling priority, that claims it."""
    families = sorted((load(name) for name in names()), key=lambda family: (-family.priority, family.name))
    return next(family for family in families if family.matches(template))
