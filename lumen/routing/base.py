"""The seam of a policy: targets and a view of the request in, the order to try the targets in out. Pure.

A policy is a file in this folder with a function `order`, or a folder with a `policy.py`, or a Python file of the
operator's own beside the configuration. It is given the targets that can serve the request at all; what it wants to
know besides it reads off the view, which computes nothing before it is asked.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import Protocol

from msgspec import Struct

from lumen.routing.plan.view import Candidate, View

__all__ = ["Candidate", "Policy", "Step", "View", "arranged", "marked", "policy", "stateless"]


class Step(Struct, frozen=True, gc=False):
    """One entry of a plan: which candidate, and why it stands here.

    `score`: how likely its answer is good enough, as the route's scorer saw the request; `bar`: what that had to reach.
    """

    key: int
    reason: str
    score: float | None = None
    bar: float | None = None


class Policy(Protocol):
    def __call__(self, candidates: Sequence[Candidate], view: View) -> list[Step]:
        """Every one of `candidates` once, first what is to be asked first. The same view gives the same order."""
        ...


def policy(name: str) -> Policy:
    """The policy in `lumen/routing/<name>.py` or `<name>/policy.py`, imported when a route first names it.

    Raises:
        LookupError: there is no such policy.
    """
    for module in (f"lumen.routing.{name}", f"lumen.routing.{name}.policy"):
        try:
            found: Policy = import_module(module).order
        except (ImportError, AttributeError):
            continue
        return found
    raise LookupError(f"there is no routing policy named '{name}'")


def stateless(order: Policy) -> bool:
    """Whether a policy says, by `STATELESS = True` in its file, that it looks at nothing earlier requests left."""
    return bool(getattr(sys.modules.get(order.__module__), "STATELESS", False))


def marked(steps: Iterable[Step], marks: Mapping[int, tuple[float, float | None]]) -> list[Step]:
    """The same with score and bar; `marks`: key → both, of those that have them."""
    return [Step(one.key, one.reason, *marks[one.key]) if one.key in marks else one for one in steps]


def arranged(
    ranked: Iterable[Candidate], view: View, first: Callable[[Candidate], str], rest: Callable[[Candidate], str]
) -> list[Step]:
    """Steps in that order, but those that are out for now behind all others. `first`, `rest`: the reasons."""
    standing: list[Candidate] = []
    away: list[Step] = []
    for candidate in ranked:
        out = view.out(candidate)
        if out is None:
            standing.append(candidate)
        else:
            away.append(Step(candidate.key, f"out: {out}"))
    told = [Step(c.key, rest(c) if i else first(c)) for i, c in enumerate(standing)]
    return told + away
