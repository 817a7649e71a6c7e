"""What operators ask for, from the words of a command to plans. Pure."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from msgspec import Struct

from lumen.config.units import parse_share
from lumen.core.errors import RequestError
from lumen.core.money import parse_amount
from lumen.learning.checks import CheckerError, split
from lumen.routing.rollout.canary import Plan
from lumen.routing.rollout.guards import Margins

_BUDGET = "1usd"
_T = TypeVar("_T")


class Options(Struct, forbid_unknown_fields=True):
    """All that can be said of a shadow or a canary; the words of the command line."""

    candidate: str = ""
    share: str | None = None
    budget: str = _BUDGET
    judge: str | None = None
    checker: str | None = None
    texts: bool = False
    steps: str = "1,5,25,50,100"
    guard: str | None = None
    margin: list[str] = []
    most: int = 20_000
    dwell: int = 20
    feedback: bool = False
    wait: bool = False


class LearnOptions(Struct, forbid_unknown_fields=True):
    """What can be said of learning. `version`: to roll back to; 0: the one before."""

    dry: bool = False
    version: int = 0


def read(text: str) -> Options:
    """Raises RequestError: they cannot be meant."""
    return _read(text, Options)


def read_learn(text: str) -> LearnOptions:
    """Raises RequestError: they cannot be meant."""
    return _read(text, LearnOptions)


def share(written: str | None, default: float) -> float:
    """A share of requests, in (0, 1].

    Raises:
        RequestError: it is none.
    """
    if written is None:
        return default
    try:
        found = parse_share(written)
    except ValueError:
        found = 0.0
    if not 0.0 < found <= 1.0:
        raise RequestError(f"'{written}' is no share of requests; write for example 5%.", param="share")
    return found


def budget(written: str) -> int:
    """An amount in pico-dollars.

    Raises:
        RequestError: it is none.
    """
    try:
        return parse_amount(written)
    except ValueError as error:
        raise RequestError(f"The budget cannot be read: {error}.", param="budget") from None


def checker(written: str | None) -> str | None:
    """A checker as written.

    Raises:
        RequestError: it is none.
    """
    if written is not None:
        try:
            split(written)
        except CheckerError as error:
            raise RequestError(f"{error}.", param="checker") from None
    return written


def plan(options: Options) -> Plan:
    """The steps and guards of a canary.

    Raises:
        RequestError: they cannot be meant, or the quality guard has nobody who judges.
    """
    rated = options.judge is not None or options.checker is not None or options.feedback
    default = "quality,ttft,cost,errors" if rated else "ttft,cost,errors"
    guards = tuple(name.strip() for name in (options.guard or default).split(",") if name.strip())
    if "quality" in guards and not rated:
        raise RequestError(
            "Nobody says how good the answers are: give --judge, --checker or --feedback, or leave quality out of "
            "--guard.",
            param="guard",
        )
    try:
        steps = tuple(float(step) for step in options.steps.split(","))
        margins = Margins(**{name: parse_share(value) for name, value in map(_pair, options.margin)})
    except (ValueError, TypeError):
        raise RequestError(
            "Write --steps as 1,5,25,50,100 and --margin as quality=5%, errors=2%, ttft=25% or cost=25%."
        ) from None
    made = Plan(steps, guards, margins, dwell=options.dwell, most=options.most)
    if (wrong := made.problems()) is not None:
        raise RequestError(f"This cannot be rolled out: {wrong}.")
    return made


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name.strip(), value.strip()


def _read(text: str, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(text or "{}", type=kind)
    except msgspec.MsgspecError as error:
        raise RequestError(f"The options cannot be read: {error}.", param="options") from None
