"""What a template may spend: every loop step, call and piece of text is charged, so that none works without end."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from jinja2 import Undefined

#: Charges. One unit is about a character copied.
STEP = 50
CALL = 200
MACRO = 2_000
ELEMENT = 16
BASE = 32_000_000

#: Bits of the largest whole number a template may compute.
MAX_BITS = 4096

#: Methods of strings that templates use, none of which makes much of little.
STR_METHODS = frozenset(
    {
        *("capitalize", "count", "endswith", "find", "index", "isalnum", "isalpha", "isdigit", "isdecimal"),
        *("islower", "isnumeric", "isspace", "istitle", "isupper", "join", "lower", "lstrip", "partition"),
        *(
            "removeprefix",
            "removesuffix",
            "replace",
            "rfind",
            "rindex",
            "rpartition",
            "rsplit",
            "rstrip",
            "split",
        ),
        *("splitlines", "startswith", "strip", "swapcase", "title", "upper"),
    }
)

_WIDE = re.compile(r"%[^a-zA-Z%]*(\*|[0-9]{4})")


class OverBudget(Exception):
    """The template did more than a chat template has to."""


class Meter:
    """Units left to one rendering."""

    __slots__ = ("_left",)

    def __init__(self, units: int) -> None:
        self._left = units

    def spend(self, units: int) -> None:
        self._left -= units
        if self._left < 0:
            raise OverBudget("it does too much work")


METER: ContextVar[Meter] = ContextVar("template_meter")


def spend(units: int) -> None:
    METER.get().spend(units)


def weigh(value: Any) -> None:
    """Charges for the text of `value`, before it is made."""
    meter = METER.get()
    todo = [value]
    while todo:
        one = todo.pop()
        if isinstance(one, str):
            meter.spend(len(one))
        elif isinstance(one, Mapping):
            meter.spend(ELEMENT * (1 + len(one)))
            todo.extend(one.keys())
            todo.extend(one.values())
        elif isinstance(one, (list, tuple)):
            meter.spend(ELEMENT * (1 + len(one)))
            todo.extend(one)
        elif not isinstance(one, Undefined):
            meter.spend(ELEMENT)


def operate(operator: str, left: Any, right: Any) -> None:
    """Charges for `left operator right`, or refuses it, before it is done."""
    for one in (left, right):
        if isinstance(one, int) and one.bit_length() > MAX_BITS:
            raise OverBudget("it computes with huge numbers")
    if operator == "+":
        _charge_length(left)
        _charge_length(right)
    elif operator == "*":
        for one, times in ((left, right), (right, left)):
            if isinstance(one, (str, list, tuple)) and isinstance(times, int):
                spend(ELEMENT * len(one) * max(times, 0))
    elif operator == "**":
        if isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > MAX_BITS:
            raise OverBudget("it computes with huge numbers")
    elif operator == "%" and isinstance(left, str):
        formats(left)
        weigh(right)


def formats(form: str) -> None:
    """Refuses a printf format that pads to a great width."""
    if _WIDE.search(form):
        raise OverBudget("it pads text to a great width")
    spend(len(form))


def method(text: str, name: str, args: tuple[Any, ...]) -> None:
    """Charges for a call of a string's method."""
    if name == "replace" and len(args) >= 2 and all(isinstance(arg, str) for arg in args[:2]):
        times = text.count(args[0]) if args[0] else len(text) + 1
        spend(times * len(args[1]))
    elif name == "join" and args and isinstance(args[0], (list, tuple)):
        spend(len(text) * len(args[0]))
        weigh(args[0])
    spend(len(text))


def _charge_length(value: Any) -> None:
    if isinstance(value, str):
        spend(len(value))
    elif isinstance(value, (list, tuple)):
        spend(ELEMENT * len(value))
