"""The seam of a policy: targets in, the order to try them out. Pure; chance is an argument."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Candidate:
    """A target as a policy sees it; `key` is its place in the route's own list."""

    key: int
    name: str
    weight: float


@dataclass(frozen=True, slots=True)
class Step:
    """One entry of a plan: which candidate, and why it stands here."""

    key: int
    reason: str


class Policy(Protocol):
    def __call__(self, candidates: Sequence[Candidate], draw: Callable[[], float]) -> list[Step]:
        """Order `candidates`; `draw()` is uniform in [0, 1)."""
        ...


def policy(name: str) -> Policy:
    """The policy in `lumen/routing/<name>.py`, imported when a route first names it.

    Raises:
        LookupError: there is no such policy.
    """
    try:
        module = import_module(f"lumen.routing.{name}")
        found: Policy = module.order
    except (ImportError, AttributeError):
        raise LookupError(f"there is no routing policy named '{name}'") from None
    return found
