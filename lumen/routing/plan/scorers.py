"""Scorers of learning routes, made ready when a configuration loads and when a new version is told. Blocking."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from lumen.routing.auto.scorer import Scorer

Scorers = Mapping[str, "tuple[Scorer | None, str]"]
"""Route → its scorer and the number of its version, or why there is none."""
NOTHING_LEARNT = "nothing is learnt yet"


class Versions(Protocol):
    """Where versions of scorers are kept."""

    def current(self, route: str) -> tuple[int, bytes] | None:
        """Number and bytes of the live version."""


def read(versions: Versions, routes: Iterable[str]) -> Scorers:
    """The live scorer of each route. numpy is imported where there is one, and not before."""
    return {route: one(versions.current(route)) for route in routes}


def one(live: tuple[int, bytes] | None) -> tuple[Scorer | None, str]:
    """A scorer made ready, once asked for a score, so that no request waits for what it imports and unpacks; with the
    number of its version, or with why there is none."""
    if live is None:
        return None, NOTHING_LEARNT
    from lumen.routing.auto.ask import Ask
    from lumen.routing.auto.model import ModelError
    from lumen.routing.auto.scorer import Scorer

    number, data = live
    try:
        scorer = Scorer.load(data)
    except ModelError as error:
        return None, f"version {number} cannot be used: {error}"
    scorer.score(Ask("warm up"))
    return scorer, str(number)
