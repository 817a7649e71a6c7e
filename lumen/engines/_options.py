"""The `options` of a model: passed to its engine after a strict check. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from lumen.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Option:
    """What one option may hold: a type, and either the choices or the range of a number."""

    kind: type
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None


def nearest(wrong: str, known: tuple[str, ...]) -> str:
    """The second half of an error message: the nearest valid name, or all of them."""
    close = get_close_matches(wrong, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"valid: {', '.join(known) or 'none'}"


def check_options(engine: str, options: Mapping[str, Any], known: Mapping[str, Option]) -> dict[str, Any]:
    """`options` as they are, once every one of them is known and of its type.

    Raises:
        ConfigError: names the option, what is wrong with it, and the nearest valid name.
    """
    for name, value in options.items():
        option = known.get(name)
        if option is None:
            raise ConfigError(f"engine {engine!r} has no option {name!r}; {nearest(str(name), tuple(sorted(known)))}")
        problem = _problem(option, value)
        if problem:
            raise ConfigError(f"option {name!r} of engine {engine!r} {problem}, not {value!r}")
    return dict(options)


def _problem(option: Option, value: Any) -> str | None:
    kind = option.kind
    # A YAML `true` is an int to Python; a whole number is good enough where a fraction may stand.
    if isinstance(value, bool) is not (kind is bool) or not isinstance(value, (int, float) if kind is float else kind):
        return f"must be of type {kind.__name__}"
    if option.choices and value not in option.choices:
        return f"must be one of {', '.join(option.choices)}"
    if isinstance(value, (int, float)):
        if option.least is not None and value < option.least:
            return f"must be at least {option.least:g}"
        if option.most is not None and value > option.most:
            return f"must be at most {option.most:g}"
    return None
