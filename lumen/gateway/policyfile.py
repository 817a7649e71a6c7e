"""Policies in the operator's own Python files beside the configuration (`policy: mine.py`).

Such a file is the operator's code and may do all that the gateway may. What it gives for a request is checked: whatever
it leaves out stands behind as fallbacks, and where it fails the configured order serves.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from lumen.core.errors import ConfigError
from lumen.routing.base import Candidate, Policy, Step, View

_LARGEST = 1 << 20


def read_all(names: Iterable[str], folder: Path, told: Callable[[str], None]) -> dict[str, Policy]:
    """The policies in those of `names` that are files. Blocking. `told`: of the first failure of each.

    Raises:
        ConfigError: with the file and line.
    """
    return {name: read(folder / name, name, told) for name in dict.fromkeys(names) if name.endswith(".py")}


def read(path: Path, name: str, told: Callable[[str], None]) -> Policy:
    """The policy in one file: its function `order(candidates, view)`, made safe.

    Raises:
        ConfigError: with the file and line.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise ConfigError("a policy's file is at most 1 MiB", where=str(path))
        source = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror or error}", where=str(path)) from None
    module = ModuleType(f"lumen_policy_{path.stem}")
    module.__file__ = str(path)
    try:
        exec(compile(source, str(path), "exec"), vars(module))
    except SyntaxError as error:
        raise ConfigError(f"{error.msg}", where=f"{path}:{error.lineno or 1}") from None
    except Exception as error:  # noqa: BLE001 - whatever the operator's file does when it is read, its line is told
        raise ConfigError(f"{type(error).__name__}: {error}", where=f"{path}:{_line(error, path)}") from None
    order = getattr(module, "order", None)
    if not callable(order):
        raise ConfigError("a policy needs a function order(candidates, view)", where=f"{path}:1")
    return guarded(order, path, name, told)


def guarded(
    order: Callable[[Sequence[Candidate], View], Any], path: Path, name: str, told: Callable[[str], None]
) -> Policy:
    """`order` with whatever it gives made a plan, and with the configured order where it fails."""
    complained = False

    def safe(candidates: Sequence[Candidate], view: View) -> list[Step]:
        nonlocal complained
        try:
            return whole(order(candidates, view), candidates, name)
        except Exception as error:  # noqa: BLE001 - a request must not fail for what the operator's file does
            if not complained:
                complained = True
                told(f"the policy {path}:{_line(error, path)} failed: {type(error).__name__}: {error}")
            return [
                Step(c.key, f"{name} failed; {'fallback' if i else 'first in order'}") for i, c in enumerate(candidates)
            ]

    return safe


def whole(given: Any, candidates: Sequence[Candidate], name: str) -> list[Step]:
    """A plan with every candidate once. An item may be a step, a candidate, or a target's name.

    Raises:
        TypeError: it is none of these.
    """
    keys = {c.key: c for c in candidates}
    by_name = {c.name: c.key for c in candidates}
    steps: dict[int, Step] = {}
    for item in given:
        if isinstance(item, Step):
            key, reason = item.key, str(item.reason) or name
        elif isinstance(item, Candidate):
            key, reason = item.key, name
        elif isinstance(item, str):
            key, reason = by_name.get(item, -1), name
        else:
            raise TypeError(f"order gave {type(item).__name__}; give candidates, their names, or steps")
        if key in keys:
            steps.setdefault(key, Step(key, reason))
    return [*steps.values(), *(Step(key, f"fallback, left out by {name}") for key in keys if key not in steps)]


def _line(error: BaseException, path: Path) -> int:
    """The last line of the operator's file on the way to the error."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return (lines[-1] if lines else None) or 1
